"""A small language for states: intervals of named quantities joined by and, or and not."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnce_dist.core.errors import InputError

BoolArray = NDArray[np.bool_]
Values = Mapping[str, NDArray[np.floating]]

_TOKEN = re.compile(r"(?!(?:and|or|not)\()\w+\([^()]*\)|[\[\](),]|[^\s\[\](),]+")
_RESERVED = {"and", "or", "not", "in", "[", "]", "(", ")", ","}


class Condition(ABC):
    """What `parse_condition` returns: true or false of every sample."""

    @abstractmethod
    def contains(self, values: Values) -> BoolArray:
        """Return where it holds, in the shape of the values.

        Args:
            values: One array per name, all of one shape.
        """

    @abstractmethod
    def intervals(self) -> Iterator["Interval"]:
        """Yield the intervals it is made of."""


@dataclass(frozen=True)
class Interval(Condition):
    """``name in [lower, upper]``, without the edges; from a larger to a smaller one through pi.

    Args:
        name: Of the quantity.
        lower: Where it begins.
        upper: Where it ends.
    """

    name: str
    lower: float
    upper: float

    @property
    def wraps(self) -> bool:
        """Whether it leads through pi."""
        return self.lower > self.upper

    def __str__(self) -> str:
        return f"{self.name} in [{self.lower:g}, {self.upper:g}]"

    def contains(self, values: Values) -> BoolArray:
        """Return where the quantity is in the interval."""
        above, below = values[self.name] > self.lower, values[self.name] < self.upper
        return above | below if self.wraps else above & below

    def intervals(self) -> Iterator["Interval"]:
        """Yield itself."""
        yield self


@dataclass(frozen=True)
class Not(Condition):
    """Where another condition does not hold.

    Args:
        part: The other.
    """

    part: Condition

    def contains(self, values: Values) -> BoolArray:
        """Return where the part does not hold."""
        return ~self.part.contains(values)

    def intervals(self) -> Iterator[Interval]:
        """Yield those of the part."""
        yield from self.part.intervals()


@dataclass(frozen=True)
class Joined(Condition):
    """Where all of several conditions hold, or any of them.

    Args:
        parts: Two or more.
        every: Whether all of them must.
    """

    parts: tuple[Condition, ...]
    every: bool

    def contains(self, values: Values) -> BoolArray:
        """Return where all parts hold, or any."""
        join = np.logical_and if self.every else np.logical_or
        return join.reduce([part.contains(values) for part in self.parts])

    def intervals(self) -> Iterator[Interval]:
        """Yield those of all parts."""
        for part in self.parts:
            yield from part.intervals()


def parse_condition(text: str) -> Condition:
    """Return the condition that a text says.

    ``not`` binds closest, then ``and``, then ``or``; parentheses group. Names are any text without
    blanks, brackets and commas, or a word with arguments: ``phi``, ``chi1:2``, ``C1-C2-C3-C4``,
    ``distance(2:N,2:O)``.

    Args:
        text: Such as ``"(phi in [-2.5, -1] and psi in [-1.3, 0.3]) or not psi in [2, -2]"``.

    Raises: InputError: it cannot be read; the line says where, and what was expected there.

    Examples:
        >>> condition = parse_condition("x in [0, 2] and not x in [1, 1.5]")
        >>> condition.contains({"x": np.array([-0.5, 0.5, 1.2, 1.7])})
        array([False,  True, False,  True])
    """
    return _Parser(text).parse()


class _Parser:
    """Recursive descent: one method per rule, from the loosest to the closest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(match.group(), match.start() + 1) for match in _TOKEN.finditer(text)]
        self.tokens.append(("", len(text) + 1))
        self.number = 0

    def parse(self) -> Condition:
        found = self._any()
        if self._token:
            raise self._refused("'and', 'or' or the end")
        return found

    def _any(self) -> Condition:
        parts = [self._every()]
        while self._skip("or"):
            parts.append(self._every())
        return Joined(tuple(parts), every=False) if len(parts) > 1 else parts[0]

    def _every(self) -> Condition:
        parts = [self._one()]
        while self._skip("and"):
            parts.append(self._one())
        return Joined(tuple(parts), every=True) if len(parts) > 1 else parts[0]

    def _one(self) -> Condition:
        if self._skip("not"):
            return Not(self._one())
        if self._skip("("):
            found = self._any()
            self._require(")", "'and', 'or' or ')'")
            return found
        return self._interval()

    def _interval(self) -> Interval:
        if not self._token or self._token in _RESERVED:
            raise self._refused("a name, 'not' or '('")
        name = "".join(self._take().split())
        self._require("in", "'in'")
        self._require("[", "'['")
        lower = self._edge()
        self._require(",", "','")
        upper = self._edge(other_than=lower)
        self._require("]", "']'")
        return Interval(name, lower, upper)

    def _edge(self, other_than: float | None = None) -> float:
        try:
            edge = float(self._token)
        except ValueError:
            edge = math.nan
        if not math.isfinite(edge):
            raise self._refused("a number")
        if edge == other_than:
            raise self._refused("another number than the lower edge")
        self._take()
        return edge

    @property
    def _token(self) -> str:
        return self.tokens[self.number][0]

    def _take(self) -> str:
        self.number += 1
        return self.tokens[self.number - 1][0]

    def _skip(self, token: str) -> bool:
        if self._token != token:
            return False
        self._take()
        return True

    def _require(self, token: str, expected: str) -> None:
        if not self._skip(token):
            raise self._refused(expected)

    def _refused(self, expected: str) -> InputError:
        token, position = self.tokens[self.number]
        return InputError(
            f"condition {self.text!r}",
            expected=f"{expected} at character {position}",
            got=repr(token) if token else "the end",
            remedy="write it like: phi in [0, 2] and not (psi in [2, -2] or psi in [0, 1])",
        )
