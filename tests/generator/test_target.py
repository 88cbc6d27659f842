"""What is asked of a molecule must be something it can do."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch

from bnce_dist.chem.geometry import with_torsions
from bnce_dist.chem.molecule import Molecule
from bnce_dist.chem.potentials.openmm import OpenMMPotential
from bnce_dist.chem.state import POSITIVE_PHI
from bnce_dist.chem.topology_file import system_to_xml
from bnce_dist.chem.trajectory_file import write_trajectory
from bnce_dist.chem.validation import relabel_hydrogens
from bnce_dist.config.load import load_config, to_yaml
from bnce_dist.core.errors import InputError
from bnce_dist.generator.target import Target, TargetConfig
from bnce_dist.pipeline.artifact import digest_of
from tests.chem.molecule_files import WRITERS
from tests.chem.substances import alkane, system_of

BUTANE = alkane(4)


def test_a_state_that_a_ring_excludes_is_refused_before_anything_is_simulated() -> None:
    with pytest.raises(InputError, match="the ring of ACE-PRO-NME") as refused:
        Target.from_config(TargetConfig(sequence="ACE-PRO-NME"))
    assert "\n" not in str(refused.value)
    # All of what proline can do is as bad: nothing would be left outside.
    with pytest.raises(InputError, match="ring"):
        Target.from_config(
            TargetConfig(sequence="ACE-PRO-NME", state_phi_min=-math.pi, state_phi_max=0.0)
        )


def test_a_state_within_reach_of_a_ring_and_any_state_without_one() -> None:
    split = TargetConfig(sequence="ACE-PRO-NME", state_phi_min=-2.0, state_phi_max=-1.2)
    target = Target.from_config(split)
    phi, psi = np.radians([-90.0, -60.0]), np.zeros(2)
    assert target.state.contains(phi, psi).tolist() == [True, False]
    # The ring is not about the first phi.
    assert Target.from_config(TargetConfig(sequence="ACE-ALA-PRO-NME")).state == POSITIVE_PHI


def butane(folder: Path, *, kind: str = "xml", **options: object) -> TargetConfig:
    files = WRITERS[kind](folder, BUTANE)
    return TargetConfig.model_validate(
        {
            "topology": str(files.topology),
            "coordinates": str(files.coordinates),
            "parameters": [str(path) for path in files.parameters],
            "torsions": ["C1-C2-C3-C4"],
            **options,
        }
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["sequence=AC", "pdb=a.pdb"], "expected one of sequence, pdb and topology"),
        (
            ["sequence=AC", "topology=a.top", "coordinates=a.gro"],
            "expected one of sequence, pdb and topology",
        ),
        (["topology=a.top"], "expected topology and coordinates together"),
        (["coordinates=a.gro"], "expected topology and coordinates together"),
        (["torsions=[phi, psi, chi1]"], "expected one or two torsions"),
        (["sequence=null"], "expected one of sequence, pdb and topology"),
        (["implicit_solvent=OBC3"], "implicit_solvent"),
    ],
)
def test_settings_that_contradict_each_other_are_one_line(
    settings: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load_config(TargetConfig, None, settings)
    assert "\n" not in str(refused.value)


def test_settings_of_files_leave_those_of_a_sequence_as_they_were() -> None:
    old = {"sequence", "pdb", "force_field", "temperature_kelvin", "state_phi_min", "state_phi_max"}
    assert set(TargetConfig().model_dump(mode="json")) == old
    files = load_config(TargetConfig, None, ["topology=a.top", "coordinates=a.gro"])
    assert files.sequence is None
    assert set(files.model_dump(mode="json")) == {*old, "topology", "coordinates"}


def test_the_state_is_an_interval_of_the_torsion_that_is_named(tmp_path: Path) -> None:
    target = Target.from_config(butane(tmp_path, state_phi_min=0.0, state_phi_max=2.0))
    molecule = target.molecule
    assert molecule.phi == (0, 1, 2, 3)
    # Trans, two ways of gauche, and cis, by hand: the carbons are the first atoms.
    angles = torch.tensor([[math.pi], [1.1], [-1.1], [0.1]], dtype=torch.float64)
    structures = with_torsions(
        torch.from_numpy(molecule.positions_nm), molecule.bonds, [(0, 1, 2, 3)], angles
    )
    assert target.in_state(structures).tolist() == [False, True, False, True]
    carbons = structures[:, :4].numpy()
    ends = np.linalg.norm(carbons[:, 3] - carbons[:, 0], axis=1)
    assert ends[3] < ends[1] < ends[0]
    assert ends[1] == pytest.approx(ends[2])
    # The companion turns a methyl group.
    assert set(molecule.psi[1:3]) in ({0, 1}, {2, 3})


@pytest.mark.parametrize("kind", WRITERS)
def test_a_target_from_files_is_the_one_from_its_state(kind: str, tmp_path: Path) -> None:
    config = butane(tmp_path, kind=kind, torsions=["C1-C2-C3-C4", "C2-C3-C4-H10"])
    target = Target.from_config(config)
    torch.save(target.to_state(), tmp_path / "state.pt")
    for path in tmp_path.iterdir():
        if path.suffix != ".pt":
            path.unlink()
    with pytest.raises(InputError, match="No such file"):
        Target.from_config(config)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = Target.from_state(config, state)
    assert again.molecule == target.molecule
    assert again.molecule.psi == (1, 2, 3, 13)
    assert again.state == target.state
    np.testing.assert_array_equal(again.molecule.positions_nm, target.molecule.positions_nm)
    noise = torch.randn(5, 14, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions = torch.from_numpy(BUTANE.positions_nm) + 0.01 * noise
    energy = again.force_field.reduced_potential(positions)
    torch.testing.assert_close(energy, target.force_field.reduced_potential(positions))
    oracle = OpenMMPotential(system_of(BUTANE), 300.0).reduced_potential(positions)
    torch.testing.assert_close(energy, oracle, rtol=1e-6, atol=0)


def test_a_target_of_a_pdb_file_keeps_its_numbering_of_hydrogens(tmp_path: Path) -> None:
    """Of a methylene group they may be numbered either way, which its name does not tell."""
    built = Molecule.from_sequence("ACE-SER-NME")
    first, second = (built.atom_names.index(name) for name in ("HB2", "HB3"))
    order = list(range(built.num_atoms))
    order[first], order[second] = second, first
    write_trajectory(tmp_path / "other.pdb", built, built.positions_nm[None, order])
    config = TargetConfig.model_validate({"pdb": str(tmp_path / "other.pdb")})
    target = Target.from_config(config)
    sequence = config.model_copy(update={"sequence": "ACE-SER-NME", "pdb": None})
    again = Target.from_state(sequence, target.to_state())
    frame = torch.from_numpy(target.molecule.positions_nm)[None]
    torch.testing.assert_close(
        again.force_field.reduced_potential(frame), target.force_field.reduced_potential(frame)
    )
    assert not torch.equal(relabel_hydrogens(built, frame), frame)
    assert torch.equal(relabel_hydrogens(again.molecule, frame), frame)


def test_xtb_is_refused_where_the_charge_of_a_molecule_is_not_clear(tmp_path: Path) -> None:
    target = Target.from_config(butane(tmp_path))
    charged = system_of(BUTANE)
    (nonbonded,) = (f for f in charged.getForces() if isinstance(f, openmm.NonbondedForce))
    charge, *others = nonbonded.getParticleParameters(0)
    nonbonded.setParticleParameters(0, charge._value - 2.0, *others)
    with pytest.raises(InputError, match=r"charge of openmm in xTB: expected -2, .* got \+0"):
        replace(target, system_xml=system_to_xml(charged)).with_xtb()


@pytest.mark.parametrize(
    ("torsions", "message"),
    [
        (["C1-C2-C3-C4", "H4-C2-C3-H7"], "target.torsions: expected torsions about two bonds"),
        (["C1-C2-C3-C4", "C4-C3-C2-C1"], "target.torsions: expected torsions about two bonds"),
        (["chi1"], "torsion 'chi1' of openmm: expected phi, psi"),
        (["C1-C2-C3-C5"], "atom of the torsion 'C1-C2-C3-C5': expected one of C1, C2"),
        ([], "expected a residue with a phi torsion, got none; name target.torsions"),
    ],
)
def test_torsions_that_a_molecule_cannot_have_are_one_line(
    torsions: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        Target.from_config(butane(tmp_path, torsions=torsions))
    assert "\n" not in str(refused.value)


GOLDEN = {
    (): "f973090563a28e965d1e943b5a40a32c6335a6d61be7e9ee1205d63687e64edb",
    ("state_phi_min=-2.0", "state_phi_max=-1.2"): (
        "84662b6550a59fcb477d90cd8bd97be6d5079b6447cd8c4f3b2b198cf90ceb46"
    ),
}
"""Digests of the section, which keys of stages are made of, by the version before conditions."""


@pytest.mark.parametrize("settings", GOLDEN)
def test_keys_of_earlier_runs_stay_what_they_were(settings: tuple[str, ...]) -> None:
    config = load_config(TargetConfig, None, list(settings))
    assert digest_of(config.model_dump(mode="json")) == GOLDEN[settings]


def test_a_state_is_a_condition_on_both_torsions() -> None:
    text = "(phi in [-2.5, -1] and psi:2 in [-1.3, 0.3]) or not psi in [2, -2]"
    target = Target.from_config(TargetConfig(sequence="ACE-ALA-NME", state=text))
    phi, psi = np.meshgrid(np.linspace(-3, 3, 13), np.linspace(-3, 3, 13))
    expected = ((phi > -2.5) & (phi < -1) & (psi > -1.3) & (psi < 0.3)) | (np.abs(psi) <= 2)
    np.testing.assert_array_equal(target.state.contains(phi, psi), expected)
    assert target.state.interval is None
    assert target.long_reference(TargetConfig(state=text)) is None


def test_a_condition_that_is_the_interval_is_the_interval() -> None:
    config = TargetConfig(state="phi in [0, 2]")
    target = Target.from_config(config)
    assert target.state.interval == (0.0, 2.0)
    assert target.long_reference(config) == target.long_reference(TargetConfig()) is not None
    # The committed reference is of phi; the same numbers of another torsion are another state.
    turned = TargetConfig(torsions=("psi", "phi"))
    assert Target.from_config(turned).long_reference(turned) is None


def test_a_written_configuration_with_a_condition_is_read_again(tmp_path: Path) -> None:
    config = load_config(TargetConfig, None, ["state=phi in [0, 2] and psi in [-1, 1.5]"])
    assert config.state == "phi in [0, 2] and psi in [-1, 1.5]"
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(TargetConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": "phi in [0, 2", "state_phi_min": 0.0}, "expected '.' at character 13"),
        ({"state": "phi in [0, 2] or phi in [2, 0]"}, "can leave, got phi .*, which is everywhere"),
        ({"state": "phi in [0, 1] and phi in [1, 2]"}, "which is nowhere"),
        ({"state": "phi in [0, 200]"}, "write them in rad"),
        ({"state": "chi1 in [0, 2]"}, "got no residue with it"),
        ({"state": "phj in [0, 2]"}, "expected one of phi, psi, omega, .*the nearest is phi"),
        (
            {"state": "omega in [0, 2]"},
            "2:N-2:CA-2:C-3:N, got omega; put it into target.torsions if",
        ),
        ({"state": "distance(1:O,3:N) in [0, 0.3]"}, "or ask for it afterwards with bnce states"),
        ({"state_phi_min": -math.pi, "state_phi_max": math.pi}, "which is everywhere"),
    ],
)
def test_a_state_that_cannot_be_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        Target.from_config(TargetConfig.model_validate(settings))
    assert "\n" not in str(refused.value)


def test_a_condition_and_an_interval_contradict_each_other() -> None:
    with pytest.raises(InputError, match="expected state alone, or state_phi_min"):
        load_config(TargetConfig, None, ["state=psi in [0, 2]", "state_phi_max=1.0"])


def test_the_ring_of_proline_is_in_the_way_of_conditions() -> None:
    def target(state: str) -> Target:
        return Target.from_config(TargetConfig(sequence="ACE-PRO-NME", state=state))

    # Phi of proline is near -1.2 rad: what a condition says of other places does not matter.
    with pytest.raises(InputError, match=r"ring of ACE-PRO-NME .*, which is nowhere"):
        target("phi in [0.5, 2] and psi in [-1, 1]")
    with pytest.raises(InputError, match=r"ring of ACE-PRO-NME .*, which is everywhere"):
        target("phi in [-3, 1] or psi in [-1, 1]")
    reachable = target("phi in [-3, 1] and psi in [-1, 1]").state
    assert reachable.contains(np.array([-1.2, -1.2]), np.array([0.0, 2.0])).tolist() == [
        True,
        False,
    ]
