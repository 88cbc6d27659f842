import pytest
from pydantic import ValidationError

from bnce_dist.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0),
        ("global_batch_size", -4),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("warmup_steps", 1000),
        ("weight_decay", -1.0),
        ("gradient_clip", 0.0),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
        ("optimizer", "sgd"),
        ("schedule", "linear"),
        ("precision", "fp16"),
        ("checkpoint_interval", 0),
        ("report_interval", 0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        TrainSettings(**{"num_steps": 1000, name: value})
