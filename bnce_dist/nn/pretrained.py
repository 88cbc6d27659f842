"""The published checkpoints, loaded as they are."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bnce_dist.core.errors import InputError
from bnce_dist.core.places import local_path
from bnce_dist.nn.gvp import GVPVectorField

_MODULES = (
    (r"^initial_embedding\.0\.", "embedding."),
    (r"^convs\.", "layers."),
    (r"^position_updater\.gvps\.0\.", "output."),
    (r"\.edge_message\.0\.", ".message."),
    (r"\.node_update\.0\.", ".update."),
    (r"\.node_position_update\.", ".step."),
    (r"\.(message|update)_layer_norm\.feat_norm\.", r".\1_norm.scalar_norm."),
    (r"\.to_feats_out\.0\.", ".scalars."),
    (r"\.to_feats_out\.1\.", ".activation."),
    (r"\.scalar_to_vector_gates\.", ".gate."),
    (r"\.Wh$", ".hidden"),
    (r"\.Wu$", ".mixed"),
)
"""Patterns of the published names, and ours."""
_IGNORED = re.compile(r"\.dropout\.vector_dropout\.dummy_param$")
"""An empty tensor in every layer."""


def load_pretrained(
    path: str | Path, parametrisation: Literal["velocity", "endpoint"] = "velocity"
) -> GVPVectorField:
    """Load a velocity field of the BoltzNCE repository; its size is read from the file.

    The module is called as ``model(positions, t, node_features)`` and gives the network's own
    output. Units, features and the meaning of the output are not in the file: see
    ``runs.pretrained.field``.

    Args:
        path: A checkpoint as it was released, e.g. ``unweighted_ot_ema.pt``.
        parametrisation: What the output means; only the module's ``velocity`` depends on it.

    Returns: The field in evaluation mode, on the CPU.
    Raises: InputError: no such file, not a checkpoint, or one of another architecture.
    """
    content = {name: t for name, t in _read(local_path(path)).items() if not _IGNORED.search(name)}
    weights = {_translate(name): tensor for name, tensor in content.items()}
    try:
        model = _empty_field(weights, parametrisation)
        model.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError) as error:
        got = f"{len(content)} tensors, the first ones {', '.join(list(content)[:2]) or 'missing'}"
        cause = " ".join(str(error).split())
        raise _refusal(path, f"{got} ({cause:.160})", "give a file of that repository") from error
    return model.eval()


def _empty_field(
    weights: Mapping[str, Tensor], parametrisation: Literal["velocity", "endpoint"]
) -> GVPVectorField:
    """Return the field of the size that the weights' shapes tell."""
    num_scalars, num_inputs = weights["embedding.weight"].shape
    num_channels, num_vectors = weights["layers.0.message.mixed"].shape
    num_edge_inputs = weights["layers.0.message.scalars.weight"].shape[1]
    return GVPVectorField(
        num_inputs - 1,
        parametrisation=parametrisation,
        num_layers=len({name.split(".")[1] for name in weights if name.startswith("layers.")}),
        num_scalars=num_scalars,
        num_vectors=num_vectors,
        num_radial=num_edge_inputs - num_scalars - num_channels,
    )


def _translate(name: str) -> str:
    for pattern, replacement in _MODULES:
        name = re.sub(pattern, replacement, name)
    return name


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if not path.is_file():
            raise _refusal(path, "nothing", "check the path, or download the file")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _refusal(path, error.strerror or str(error), "check the path") from error
    except InputError:
        raise
    except Exception as error:  # The unpickler raises whatever its parser meets.
        raise _refusal(
            path, f"no checkpoint ({type(error).__name__})", "download it again"
        ) from error
    if not isinstance(content, dict):
        raise _refusal(path, f"a {type(content).__name__}", "give a file of that repository")
    others = [str(name) for name, value in content.items() if not torch.is_tensor(value)]
    if others or not all(isinstance(name, str) for name in content):
        got = f"a dictionary with {', '.join(others[:4]) or 'unnamed tensors'}"
        raise _refusal(path, got, "save the model's state_dict alone")
    return content


def _refusal(path: str | Path, got: str, remedy: str) -> InputError:
    return InputError(
        f"weights {path}", expected="a published GVP velocity field", got=got, remedy=remedy
    )
