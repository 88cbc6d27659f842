"""The one exception a user's mistake raises."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line and always says what was wrong, what was expected, what came
    instead and how to put it right, so that entry points can print it as it is.

    Args:
        what: The thing at fault, e.g. ``"temperature_kelvin"``.
        expected: What would have been accepted.
        got: What came instead.
        remedy: What the user can do about it.

    Examples:
        >>> print(InputError("timestep_fs", expected="a positive number", got=-2, remedy="try 2"))
        timestep_fs: expected a positive number, got -2; try 2
    """

    def __init__(self, what: str, *, expected: object, got: object, remedy: str) -> None:
        self.what, self.expected, self.got, self.remedy = what, expected, got, remedy
        super().__init__(what, expected, got, remedy)

    @classmethod
    def unknown(
        cls, what: str, name: object, known: Iterable[str], remedy: str = ""
    ) -> "InputError":
        """Return the refusal of a name that is none of those known.

        Args:
            what: The thing at fault.
            name: What came.
            known: What would have been accepted; the nearest one is pointed out.
            remedy: What else the user can do about it.
        """
        names = list(known)
        nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0)[0]
        remedy = f"the nearest is {nearest}" + (f"; {remedy}" if remedy else "")
        return cls(what, expected=f"one of {', '.join(names)}", got=repr(name), remedy=remedy)

    def __str__(self) -> str:
        line = f"{self.what}: expected {self.expected}, got {self.got}; {self.remedy}"
        return " ".join(line.split())

    def __reduce__(self) -> tuple[object, tuple[str, object, object, str]]:
        # Keyword-only arguments do not survive the default pickling, which Ray relies on.
        return _rebuild, (self.what, self.expected, self.got, self.remedy)


def _rebuild(what: str, expected: object, got: object, remedy: str) -> InputError:
    return InputError(what, expected=expected, got=got, remedy=remedy)


@contextmanager
def as_input_error(refused: Callable[[object], InputError]) -> Iterator[None]:
    """Turn whatever reading a user's file raises into one line.

    Args:
        refused: Makes the line, told what was found instead.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # Parsers raise whatever they meet.
        line = next(iter(str(error).splitlines()), "")
        named = f"{type(error).__name__}: {line}" if isinstance(error, LookupError) else line
        raise refused(named or type(error).__name__) from error
