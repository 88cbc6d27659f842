"""From a YAML file and ``key=value`` arguments to a checked configuration."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bnce_dist.config.section import Section
from bnce_dist.core.errors import InputError

Schema = TypeVar("Schema", bound=Section)
_REMEDY = "correct the file or the argument; --dry-run prints the configuration"


class _Loader(yaml.SafeLoader):
    """YAML with the floats of everybody else: PyYAML reads ``1e-3`` as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_config(schema: type[Schema], path: Path | None, overrides: Sequence[str] = ()) -> Schema:
    """Read a configuration; what it leaves out keeps its default.

    Args:
        schema: What kind of configuration it is; every setting has a default.
        path: YAML file, or ``None`` for the defaults alone.
        overrides: ``key=value`` with dotted keys and YAML values; the last one wins.

    Raises: InputError: unreadable file, unknown key, mistyped or impossible value.
    """
    values = {} if path is None else _read_yaml(path)
    for override in overrides:
        key, value = _parse_override(override)
        _insert(values, key, value)
    return _validate(values, schema)


def load_section(schema: type[Schema], path: Path, name: str) -> Schema:
    """Read one section of a configuration file, whatever the rest of it says.

    Args:
        schema: What the section is; every setting has a default.
        path: YAML file.
        name: Of the section.

    Raises: InputError: as for `load_config`.
    """
    return _validate(_read_yaml(path).get(name) or {}, schema)


def with_values(config: Schema, values: Mapping[str, Any]) -> Schema:
    """Return the configuration with some settings changed.

    Args:
        config: What the other settings are taken from.
        values: New values by dotted names.

    Raises: InputError: unknown key, mistyped or impossible value.

    Examples:
        >>> from bnce_dist.config.section import Count, Section
        >>> class Training(Section):
        ...     num_steps: Count = 100
        >>> with_values(Training(), {"num_steps": 200})
        Training(num_steps=200)
    """
    content = config.model_dump(mode="json")
    for key, value in values.items():
        _insert(content, key.split("."), value)
    return _validate(content, type(config))


def to_yaml(config: Section) -> str:
    """Return the whole configuration as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def dotted_values(config: Section, prefix: str = "") -> dict[str, Any]:
    """Return every setting's value by its dotted name."""
    values: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Section):
            values |= dotted_values(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = value
    return values


def _validate(values: dict[str, Any], schema: type[Schema]) -> Schema:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        # An unknown key explains the errors that follow from it, so it is named first.
        errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise _explain(errors[0], schema) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), Loader=_Loader)
    except OSError as error:
        raise InputError(
            f"configuration {path}",
            expected="a readable YAML file",
            got=error.strerror or error,
            remedy="check --config",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"configuration {path}",
            expected="valid YAML",
            got=error,
            remedy="correct the file; jobs/configs holds examples",
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(
            f"configuration {path}",
            expected="a mapping of sections",
            got=type(content).__name__,
            remedy="correct the file; jobs/configs holds examples",
        )
    return content


def _parse_override(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(
            f"argument {text!r}",
            expected="key=value, for example energy.num_negatives=64",
            got=text,
            remedy="join key and value with = and without spaces",
        )
    try:
        return key.split("."), yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise InputError(
            f"argument {key}", expected="a YAML value", got=value, remedy="quote the value"
        ) from None


def _insert(values: dict[str, Any], key: Sequence[str], value: Any) -> None:
    *parents, last = key
    for parent in parents:
        child = values.get(parent)
        if not isinstance(child, dict):
            child = values[parent] = {}
        values = child
    values[last] = value


_EXPECTED = {
    "model_type": "a mapping of settings",
    "tuple_type": "a list, [A, B]",
    "too_short": "a longer list",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
}
"""What is expected where pydantic speaks of its own types."""


def _explain(error: ErrorDetails, schema: type[Section]) -> InputError:
    context = error.get("ctx", {})
    if isinstance(context.get("error"), InputError):  # raised by a validator, complete as it is
        return context["error"]
    key = ".".join(str(part) for part in error["loc"])
    got = f"{error['input']!r} ({type(error['input']).__name__})"
    if error["type"] == "extra_forbidden":
        key = _first_leaf(key, error["input"])
        expected, got = f"a known key, the nearest is {_nearest(key, schema)}", "an unknown one"
    elif error["type"] == "contradiction":
        expected, got = context["expected"], context["got"]
    elif error["type"] == "literal_error":
        expected = context["expected"]
        if len(names := re.findall(r"'([^']+)'", expected)) > 1:
            return InputError.unknown(f"configuration key {key}", error["input"], names, _REMEDY)
    elif error["type"] in _EXPECTED:
        expected = _EXPECTED[error["type"]]
    else:
        expected = error["msg"].removeprefix("Input should be ")
    return InputError(
        f"configuration key {key}" if key else "configuration",
        expected=expected,
        got=got,
        remedy=_REMEDY,
    )


def _first_leaf(key: str, value: Any) -> str:
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    return key


def _nearest(key: str, schema: type[Section]) -> str:
    """Return the known key most like ``key``, as a whole or by its last part alone."""

    def likeness(known: str) -> float:
        whole = difflib.SequenceMatcher(None, key, known).ratio()
        last = difflib.SequenceMatcher(None, key.split(".")[-1], known.split(".")[-1]).ratio()
        return whole + last

    return max(dotted_values(schema()), key=likeness)
