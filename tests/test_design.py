"""The page on the design names what is there, and leaves no room out."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bnce_dist"
PAGE = (ROOT / "docs" / "design.md").read_text()


def tree() -> set[str]:
    """Return the paths of the page's tree, folders with a slash at the end."""
    block = re.search(r"^```\nbnce_dist/\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert block
    paths, parents = set(), [""]
    for indent, name in re.findall(r"^( +)(\S+)", block.group(1), re.MULTILINE):
        depth = len(indent) // 2
        paths.add("".join([*parents[1:depth], name]))
        parents[depth:] = [name]
    return paths


def test_the_tree_has_every_room_and_nothing_else() -> None:
    folders = {
        f"{path.relative_to(PACKAGE)}/"
        for path in PACKAGE.rglob("*")
        if path.is_dir() and path.name not in {"__pycache__", "templates", "references"}
    }
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert tree() == folders | files


def test_every_path_on_the_page_exists() -> None:
    named = re.findall(r"`((?:\w+/)*\w+\.(?:py|md|json)|(?:\w+/)+)`", PAGE)
    assert len(named) > 40
    missing = [
        path
        for path in named
        if not (PACKAGE / path).exists() and not (ROOT / path).exists() and path != "metrics.json"
    ]
    assert missing == []


def test_the_nouns_are_where_the_page_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(\S+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) > 12
    absent = [noun for noun, path in rows if f"class {noun}" not in (PACKAGE / path).read_text()]
    assert absent == []
