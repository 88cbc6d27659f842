"""Tables in Markdown, whose cells are templates filled with values of the committed records.

Fields of a template are dotted paths into a record, ``{planar.lines.2.kl_grid.mean:.4f}``; a field
that begins with a dot goes on from the path of its row.
"""

import json
import string
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "benchmarks" / "results"


@cache
def record(name: str) -> Any:
    """Return the content of a record by its file's stem."""
    return json.loads((RECORDS / f"{name}.json").read_text())


def value_of(path: str) -> Any:
    """Return what is at a dotted path, which begins with the record's name."""
    name, *keys = path.split(".")
    value = record(name)
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


class Template(string.Formatter):
    """Fills templates with values of the records.

    Args:
        row: Path that fields with a leading dot go on from.
    """

    def __init__(self, row: str) -> None:
        self.row = row

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:
        """Return the value that a field of a template names."""
        path = self.row + field_name if field_name.startswith(".") else field_name
        return value_of(path), field_name


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, row: str = "") -> str:
    """Return a table in Markdown.

    Args:
        header: Headings of the columns.
        rows: Templates, one per cell.
        row: Path that fields with a leading dot go on from.
    """
    fill = Template(row).format
    lines = [header, ["---"] * len(header), *([fill(cell) for cell in cells] for cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def row_per_path(columns: dict[str, str], paths: Iterable[str]) -> str:
    """Return a table of one row per path.

    Args:
        columns: Templates by their headings.
        paths: What the templates' fields go on from.
    """
    filled = ([Template(path).format(cell) for cell in columns.values()] for path in paths)
    return table(list(columns), filled)


def row_per_name(heading: str, columns: dict[str, str], path: str) -> str:
    """Return a table of one row per key of what is at a path, which stands in the first column.

    Args:
        heading: Of the first column.
        columns: Templates of the others by their headings.
        path: Of a dictionary in a record.
    """
    rows = [
        [name, *(Template(f"{path}.{name}").format(cell) for cell in columns.values())]
        for name in value_of(path)
    ]
    return table([heading, *columns], rows)
