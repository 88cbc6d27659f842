"""Pretrained weights give the published outputs; the files come from outside the repository."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bnce_dist.core.errors import InputError
from bnce_dist.nn.pretrained import load_pretrained

FOLDER = Path(__file__).parents[2].parent / "shared" / "reference" / "published"
ALANINE = FOLDER / "unweighted_ot_ema.pt"
needs_weights = pytest.mark.skipif(not ALANINE.exists(), reason="pretrained weights are not here")


@needs_weights
def test_outputs_are_those_of_the_authors_network():
    golden = np.load(FOLDER / "unweighted_ot_ema.golden.npz")
    model = load_pretrained(ALANINE)
    inputs = (golden[name] for name in ("positions_angstrom", "time", "node_features"))
    with torch.no_grad():
        output = model(*map(torch.from_numpy, inputs))
    torch.testing.assert_close(output, torch.from_numpy(golden["output"]), rtol=0, atol=2e-4)


@needs_weights
@pytest.mark.parametrize(
    ("file", "num_layers", "num_scalars", "num_features"),
    [
        ("unweighted_ot.pt", 5, 64, 21),
        ("unweighted_ot_endpoint_tmax100_ema.pt", 5, 64, 21),
        ("trained_vector_5_layer_ot_ema.pt", 5, 64, 21),
        ("trained_vector_9_layer_kabsch_aa2_ema.pt", 9, 128, 76),
    ],
)
def test_the_size_is_read_from_the_file(file, num_layers, num_scalars, num_features):
    model = load_pretrained(FOLDER / file)
    assert len(model.layers) == num_layers
    assert model.embedding.out_features == num_scalars
    output = model(torch.randn(2, 24, 3), torch.rand(2), torch.eye(24, num_features))
    assert output.shape == (2, 24, 3)
    assert output.isfinite().all()


@needs_weights
@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_a_file_of_another_architecture_is_refused(tmp_path, change):
    weights = torch.load(ALANINE, map_location="cpu", weights_only=True)
    name = "convs.2.edge_message.0.to_feats_out.0.bias"
    if change == "missing":
        del weights[name]
    elif change == "surplus":
        weights["convs.2.edge_message.1.Wh"] = torch.zeros(3, 3)
    else:
        weights[name] = torch.zeros(7)
    torch.save(weights, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"layers\.2\..*message") as refusal:
        load_pretrained(tmp_path / "other.pt")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (torch.nn.Linear(2, 2).state_dict(), "2 tensors, the first ones weight, bias"),
        ({"state_dict": {}, "epoch": 3}, "a dictionary with state_dict, epoch"),
        ([torch.zeros(2)], "a list"),
        ({}, "0 tensors"),
    ],
)
def test_something_else_is_refused(tmp_path, content, got):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(InputError, match=f"expected a published GVP velocity field, got {got}"):
        load_pretrained(tmp_path / "other.pt")


def test_a_file_that_is_absent_or_torn_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"got nothing; check the path"):
        load_pretrained(tmp_path / "absent.pt")
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(InputError, match="got no checkpoint"):
        load_pretrained(tmp_path / "torn.pt")
    with pytest.raises(InputError, match=r"([Nn]ame too long|nothing); check the path"):
        load_pretrained(tmp_path / (300 * "x"))
