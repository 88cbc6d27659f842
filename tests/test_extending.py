"""The examples of docs/extending.md run as they are written."""

import re
from pathlib import Path
from unittest.mock import patch

import pytest

from bnce_dist.core.couplings import COUPLINGS
from bnce_dist.generator.architectures import ENERGY_MODELS

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("title", SECTIONS)
def test_an_example_runs(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "extending"}
    blocks = re.findall(r"^```python\n(.*?)^```", SECTIONS[title], re.DOTALL | re.MULTILINE)
    assert blocks
    with patch.dict(ENERGY_MODELS), patch.dict(COUPLINGS):
        for block in blocks:
            exec(compile(block, f"docs/extending.md, {title}", "exec"), names)
