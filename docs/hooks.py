"""What mkdocs cannot do by itself: formulae without a network, and a notebook as a page."""

import html
import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# As pymdownx.arithmatex leaves them, and as docstrings have them.
BLOCK = re.compile(
    r'<div class="arithmatex">\\\[(.*?)\\\]</div>|<p>\.\. math::(.*?)</p>', re.DOTALL
)
INLINE = re.compile(
    r'<span class="arithmatex">\\\((.*?)\\\)</span>|:math:<code>(.*?)</code>', re.DOTALL
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the tutorial, which is kept as a notebook."""
    notebook = json.loads((Path(config.docs_dir) / "tutorial.ipynb").read_text())
    content = "\n\n".join(_markdown(cell) for cell in notebook["cells"])
    files.append(File.generated(config, "tutorial.md", content=content))
    return files


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulae into MathML, which browsers draw by themselves; one line per section."""
    content = re.sub(r"\n(Raises|Source): ", r"<br>\n\1: ", content)
    content = BLOCK.sub(lambda found: _mathml(found, "block"), content)
    return INLINE.sub(lambda found: _mathml(found, "inline"), content)


def _mathml(found: re.Match[str], display: str) -> str:
    latex = html.unescape(next(group for group in found.groups() if group is not None))
    return convert(latex.strip(), display=display)


def _markdown(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    return f"```python\n{source}\n```" if cell["cell_type"] == "code" else source
