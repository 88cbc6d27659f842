"""Residue templates and sequences: which atoms, in which order, with which bonds."""

import functools
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnce_dist.core.errors import InputError

_ONE_LETTER = {
    "A": "ALA", "C": "CYS", "D": "ASP", "E": "GLU", "F": "PHE", "G": "GLY", "H": "HIE",
    "I": "ILE", "K": "LYS", "L": "LEU", "M": "MET", "N": "ASN", "P": "PRO", "Q": "GLN",
    "R": "ARG", "S": "SER", "T": "THR", "V": "VAL", "W": "TRP", "Y": "TYR",
}  # fmt: skip
_ALIASES = {"HIS": "HIE", "NHE": "NH2"}
N_CAP, C_CAP = "ACE", "NME"
AMIDE = "NH2"
CAPS = (N_CAP, C_CAP, AMIDE)
"""Ends without a charge; the amide's name is that of the Protein Data Bank."""
_AMBER_TEMPLATES = {AMIDE: "NHE"}
RESIDUES = tuple(sorted([*_ONE_LETTER.values(), "HID", "HIP"]))
VARIANTS = ("ASH", "CYX", "GLH", "LYN")
"""Protonated ASP and GLU, neutral LYS, and CYS in a disulfide bond, as Amber names them."""
D_RESIDUES = {
    "DAL": "ALA", "DAR": "ARG", "DSG": "ASN", "DAS": "ASP", "DCY": "CYS", "DGL": "GLU",
    "DGN": "GLN", "DHI": "HIE", "DIL": "ILE", "DLE": "LEU", "DLY": "LYS", "MED": "MET",
    "DPN": "PHE", "DPR": "PRO", "DSN": "SER", "DTH": "THR", "DTR": "TRP", "DTY": "TYR",
    "DVA": "VAL",
}  # fmt: skip
"""Mirror images, as the Protein Data Bank names them."""


@dataclass(frozen=True)
class Template:
    """A residue as a force field knows it.

    Args:
        name: Name of the residue without terminal prefix, e.g. ``"ALA"``.
        atom_names: Atom names in the force field's order.
        elements: Element symbols.
        bonds: Bonded pairs of atoms, as indices into ``atom_names``.
    """

    name: str
    atom_names: tuple[str, ...]
    elements: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]


def parse_sequence(sequence: str) -> tuple[str, ...]:
    """Split a sequence into residue names.

    Args:
        sequence: Three-letter names joined by hyphens (``"ACE-ALA-NME"``, ``"ALA-CYS"``) or
            one-letter codes of an uncapped chain (``"AC"``). Histidine is HIE unless given as
            HID or HIP; D residues have the names of the Protein Data Bank (``"DAL"``).

    Returns: The names of the residues, known or not.
    """
    text = sequence.strip().upper()
    tokens = text.split("-") if "-" in text else [_ONE_LETTER.get(code, code) for code in text]
    return tuple(_ALIASES.get(token, token) for token in tokens)


def chain_templates(names: Sequence[str]) -> list[Template]:
    """Return the template of each residue of one chain, ends that are not capped charged.

    Args:
        names: Residue names from the N to the C terminus.

    Raises: InputError: a residue is unknown, a cap is not at its end, or the chain is shorter
        than two residues.
    """
    last = len(names) - 1
    if last < 1:
        raise _bad_chain(names, "at least two residues", f"{len(names)}")
    templates = []
    for index, name in enumerate(names):
        _require_known(name, names)
        if (name == N_CAP and index != 0) or (name in CAPS[1:] and index != last):
            expected = f"{N_CAP} only first, {C_CAP} and {AMIDE} only last"
            raise _bad_chain(names, expected, f"{name} as residue {index + 1}")
        prefix = "" if name in CAPS else {0: "N", last: "C"}.get(index, "")
        template = prefix + (D_RESIDUES | _AMBER_TEMPLATES).get(name, name)
        if template not in _template_file()[0]:
            raise _bad_chain(names, f"{name} inside the chain or beside a cap", "it at the end")
        templates.append(_load_template(template, name))
    return templates


def _require_known(name: str, names: Sequence[str]) -> None:
    common = (*RESIDUES, *VARIANTS, *CAPS)
    valid = (*common, *D_RESIDUES)
    if name not in valid:
        near = max(valid, key=lambda other: _likeness(name, other))
        raise InputError(
            f"sequence {'-'.join(names)!r}",
            expected=f"residues among {', '.join(common)}, or D residues (DAL, DAR ...)",
            got=repr(name), remedy=f"did you mean {near}?",
        )  # fmt: skip


def _likeness(name: str, other: str) -> int:
    return sum(a == b for a, b in zip(name, other, strict=False))


def _bad_chain(names: Sequence[str], expected: str, got: str) -> InputError:
    return InputError(
        f"sequence {'-'.join(names)!r}", expected=expected, got=got,
        remedy="write e.g. ACE-ALA-NME, or AC for an uncapped dipeptide",
    )  # fmt: skip


@functools.cache
def _template_file() -> tuple[dict[str, ET.Element], dict[str, str]]:
    from openmm import app

    folder = Path(app.__file__).parent / "data" / "amber14"
    root = ET.parse(folder / "protein.ff14SB.xml").getroot()
    residues = {entry.attrib["name"]: entry for entry in root.iterfind("Residues/Residue")}
    types = {entry.attrib["name"]: entry.attrib for entry in root.iterfind("AtomTypes/Type")}
    return residues, {name: attributes["element"] for name, attributes in types.items()}


def _load_template(template: str, name: str) -> Template:
    residues, element_of_type = _template_file()
    atoms = residues[template].findall("Atom")
    index = {atom.attrib["name"]: position for position, atom in enumerate(atoms)}
    return Template(
        name=name,
        atom_names=tuple(index),
        elements=tuple(element_of_type[atom.attrib["type"]] for atom in atoms),
        bonds=tuple(
            (index[bond.attrib["atomName1"]], index[bond.attrib["atomName2"]])
            for bond in residues[template].findall("Bond")
        ),
    )
