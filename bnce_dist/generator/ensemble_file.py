"""Ensembles as files: one NumPy archive, or a trajectory with its weights beside it."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnce_dist.chem.trajectory_file import TRAJECTORY_WRITERS, write_trajectory
from bnce_dist.core.errors import InputError
from bnce_dist.data.atomic import atomic_path, require_new_files, require_writable

if TYPE_CHECKING:
    from bnce_dist.generator.ensemble import Ensemble
    from bnce_dist.generator.target import Target

ARCHIVE = ".npz"
FORMATS = (ARCHIVE, *TRAJECTORY_WRITERS)
WITH_TOPOLOGY = (".dcd", ".xtc")


def require_output(path: Path, *, overwrite: bool) -> None:
    """Check that an ensemble can be written, before anything expensive.

    Args:
        path: As for `write_ensemble`.
        overwrite: Whether files that exist are to be replaced.

    Raises: InputError: an unknown format, a file that exists, or a folder that cannot be written.
    """
    if path.suffix not in FORMATS:
        raise InputError.unknown(f"ending of the output file {path}", path.suffix, FORMATS)
    require_new_files(output_files(path), overwrite=overwrite)
    require_writable(path.parent)


def write_ensemble(path: Path, ensemble: "Ensemble", *, overwrite: bool = False) -> list[Path]:
    """Write an ensemble, every file whole or not at all.

    Args:
        path: ``.npz`` holds everything. ``.dcd``, ``.pdb`` and ``.xtc`` hold the positions; the
            rest goes to ``<name>.weights.npz`` beside them, and for ``.dcd`` and ``.xtc`` the
            topology to ``<name>.topology.pdb``. Samples with exact densities have
            ``log_weights_exact`` (NaN where there is none) and ``log_weights_corrected``, those of
            `Ensemble.weights`, by which averages are to be taken; these are missing where only one
            side of the state has any weight.
        ensemble: What to write.
        overwrite: Whether files that exist are to be replaced.

    Returns: The files.
    Raises: InputError: as `require_output`, or an unwritable folder.
    """
    require_output(path, overwrite=overwrite)
    molecule, files = ensemble.target.molecule, output_files(path)
    arrays: dict[str, Any] = {
        "log_weights": ensemble.log_weights,
        "log_density": ensemble.log_density,
        "reduced_potential": ensemble.reduced_potential,
        "phi": ensemble.phi,
        "psi": ensemble.psi,
        **fixed_arrays(path, ensemble.target),
    }
    if ensemble.log_weights_exact is not None:
        arrays["log_weights_exact"] = ensemble.log_weights_exact
        # Samples that took hours are kept also where nothing can be made of them.
        with suppress(InputError):
            arrays["log_weights_corrected"] = ensemble.weights.log_weights
    if path.suffix == ARCHIVE:
        arrays["positions_nm"] = ensemble.positions_nm
    else:
        write_trajectory(path, molecule, ensemble.positions_nm)
    if path.suffix in WITH_TOPOLOGY:
        write_trajectory(files[2], molecule, molecule.positions_nm[None])
    with atomic_path(archive_of(path)) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    return files


def fixed_arrays(path: Path, target: "Target") -> dict[str, Any]:
    """Return the arrays of an ensemble's archive that are not of its samples."""
    molecule = target.molecule
    names = {"atom_names": np.array(molecule.atom_names), "elements": np.array(molecule.elements)}
    temperature = {"temperature_kelvin": np.array(target.force_field.temperature_kelvin)}
    return temperature | names if path.suffix == ARCHIVE else temperature


def output_files(path: Path) -> list[Path]:
    """Return the files an ensemble is written to, the one with the positions first."""
    files = list(dict.fromkeys([path, archive_of(path)]))
    if path.suffix in WITH_TOPOLOGY:
        files.append(path.with_name(f"{path.stem}.topology.pdb"))
    return files


def archive_of(path: Path) -> Path:
    """Return the file that an ensemble's numbers are written to."""
    return path if path.suffix == ARCHIVE else path.with_name(f"{path.stem}.weights.npz")
