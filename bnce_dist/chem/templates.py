"""Residue templates and sequences: which atoms, in which order, with which bonds."""

import difflib
import functools
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from openmm import app

from bnce_dist.core.errors import InputError

_TEMPLATE_FILE = Path(app.__file__).parent / "data" / "amber14" / "protein.ff14SB.xml"
_ONE_LETTER = {
    "A": "ALA", "C": "CYS", "D": "ASP", "E": "GLU", "F": "PHE", "G": "GLY", "H": "HIE",
    "I": "ILE", "K": "LYS", "L": "LEU", "M": "MET", "N": "ASN", "P": "PRO", "Q": "GLN",
    "R": "ARG", "S": "SER", "T": "THR", "V": "VAL", "W": "TRP", "Y": "TYR",
}  # fmt: skip
_ALIASES = {"HIS": "HIE"}
N_CAP, C_CAP = "ACE", "NME"
RESIDUES = tuple(sorted([*_ONE_LETTER.values(), "HID", "HIP"]))


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
            one-letter codes without caps (``"AC"``). Histidine is HIE unless given as HID, HIP.

    Raises: InputError: a residue is unknown, or a cap is not at its end of the chain.
    """
    text = sequence.strip().upper()
    tokens = text.split("-") if "-" in text else list(text)
    names = tuple(_residue_name(token, sequence) for token in tokens)
    for index, name in enumerate(names):
        at_end = {N_CAP: index == 0, C_CAP: index == len(names) - 1}
        if not at_end.get(name, True):
            raise InputError(
                f"sequence {sequence!r}", expected="ACE only first and NME only last",
                got=f"{name} as residue {index + 1}", remedy="write e.g. ACE-ALA-NME",
            )  # fmt: skip
    if len(names) < 2:
        raise InputError(
            f"sequence {sequence!r}", expected="at least two residues, e.g. ACE-ALA-NME or AC",
            got=len(names), remedy="add residues or the caps ACE and NME",
        )  # fmt: skip
    return names


def chain_templates(names: tuple[str, ...]) -> list[Template]:
    """Return the template of each residue of one chain, ends that are not capped charged."""
    last = len(names) - 1
    templates = []
    for index, name in enumerate(names):
        is_cap = name in (N_CAP, C_CAP)
        prefix = "" if is_cap else {0: "N", last: "C"}.get(index, "")
        templates.append(_load_template(prefix + name, name))
    return templates


def _residue_name(token: str, sequence: str) -> str:
    name = _ONE_LETTER.get(token, _ALIASES.get(token, token))
    valid = (*RESIDUES, N_CAP, C_CAP)
    if name not in valid:
        near = difflib.get_close_matches(name, valid, n=1, cutoff=0.0)[0]
        raise InputError(
            f"sequence {sequence!r}", expected=f"residues among {', '.join(valid)}",
            got=repr(token), remedy=f"did you mean {near}?",
        )  # fmt: skip
    return name


@functools.cache
def _template_file() -> tuple[dict[str, ET.Element], dict[str, str]]:
    root = ET.parse(_TEMPLATE_FILE).getroot()
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
