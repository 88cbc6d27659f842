"""The page of all settings, from the configurations: ``python docs/settings.py`` writes it."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnce_dist.config.section import Section
from bnce_dist.pipeline.config import Config
from bnce_dist.runs.planar.config import PlanarConfig
from bnce_dist.runs.pretrained.config import PretrainedConfig
from bnce_dist.runs.sweep.config import SweepConfig

PAGE = Path(__file__).parent / "settings.md"
RUNS: tuple[tuple[str, Section], ...] = (
    ("bnce train", Config()),
    ("bnce planar", PlanarConfig()),
    ("bnce sweep", SweepConfig()),
    ("bnce evaluate-pretrained", PretrainedConfig()),
)
INTRODUCTION = """# Settings

<!-- Written by docs/settings.py; a test compares. -->
Every setting of every kind of run, with its default. In a YAML file they are keys of their section;
on the command line, `section.key=value`. `bnce train --dry-run` prints all of them with the values
they would have. An unknown key or an impossible value ends in one line before anything starts.
"""


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *(line for name, run in RUNS for line in _run(name, run))])


def _run(command: str, run: Section) -> Iterator[str]:
    yield f"## `{command}`\n\n{type(run).__doc__}\n"
    yield _table(_own(run), _properties(run))
    for name, section in _sections(run).items():
        yield f"### `{name}`\n\n{type(section).__doc__}\n"
        yield _section(command, name, section)


def _own(section: Section) -> dict[str, Any]:
    """Return a section's settings that are not sections themselves."""
    return {name: value for name, value in section if not isinstance(value, Section)}


def _sections(section: Section, prefix: str = "") -> dict[str, Section]:
    """Return the sections in a section, and those in them, by their dotted names."""
    found: dict[str, Section] = {}
    for name, value in section:
        if isinstance(value, Section):
            found |= {prefix + name: value} | _sections(value, f"{prefix}{name}.")
    return found


def _section(command: str, name: str, section: Section) -> str:
    """Return a section's table, without what an earlier kind of run says already."""
    values, properties = _own(section), _properties(section)
    commands = [earlier for earlier, _ in RUNS]
    for earlier, run in RUNS[: commands.index(command)]:
        namesake = _sections(run).get(name)
        if namesake is not None and values.keys() & _own(namesake).keys():
            known, described = _own(namesake), _properties(namesake)
            new = {
                key: value
                for key, value in values.items()
                if (known.get(key, value), described.get(key)) != (value, properties[key])
            }
            same = ", ".join(f"`{key}`" for key in values if key not in new)
            rest = textwrap.fill(f"As in `{name}` of `{earlier}`: {same}.", 100) + "\n"
            return f"{_table(new, properties)}\n{rest}" if new else rest
    return _table(values, properties)


def _properties(section: Section) -> dict[str, Any]:
    return type(section).model_json_schema()["properties"]


def _table(values: dict[str, Any], properties: dict[str, Any]) -> str:
    rows = [
        (f"`{name}`", _shown(value), _accepted(properties[name]), properties[name]["description"])
        for name, value in values.items()
    ]
    lines = [("setting", "default", "accepts", "meaning"), ("---",) * 4, *rows]
    # Docstrings may have several lines, cells of a table have one.
    return "".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |\n" for line in lines)


def _shown(value: Any) -> str:
    """Return a default as YAML would have it."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value) or '""'


_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true, false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}
_BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}


def _accepted(schema: dict[str, Any]) -> str:
    """Return in words the values that a setting takes."""
    if "anyOf" in schema:
        return " or ".join(_accepted(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    limits = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
    return f"{_KINDS[schema['type']]} {', '.join(limits)}".strip()


if __name__ == "__main__":
    PAGE.write_text(page())
