"""The grammar of OpenMM's expressions.

An expression may be followed by definitions of names in it, ``k*x^2; x=r-r0; r0=0.1``; each one
sees those after it. ``-x^2`` is ``-(x^2)``, ``x^y^z`` is ``x^(y^z)``, and ``2^-x`` is allowed.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from bnce_dist.chem.potentials.expressions.functions import NAMED
from bnce_dist.chem.potentials.expressions.tree import (
    Expression,
    call,
    number,
    variable,
)
from bnce_dist.core.errors import InputError

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<function>[^-+*/^,()\s=]+)\(|(?P<name>[^-+*/^,()\s=]+)|(?P<sign>\S))"
)
# Binary operators: how tightly they bind. A minus before an operand binds like _MINUS.
_BINDING = {"+": 0, "-": 0, "*": 1, "/": 1, "^": 3}
_MINUS = 2
# Functions that are shorthands of others.
_SHORTHANDS = {"square": 2.0, "cube": 3.0, "recip": -1.0}


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def parse(
    text: str,
    *,
    definitions: Mapping[str, Expression] | None = None,
    tables: Mapping[str, int] | None = None,
) -> Expression:
    """Read an expression.

    Args:
        text: The expression, with its own definitions.
        definitions: What other names stand for.
        tables: Tabulated functions and how many operands each has.

    Raises: InputError: the text is not an expression; it says where.
    """
    known = dict(definitions or {})
    statements = list(re.finditer(r"[^;]+", text))
    for statement in reversed(statements[1:]):
        if statement.group().strip():
            name, start = _defined_name(text, statement)
            known[name] = _Parser(text, start, statement.end(), known, tables or {}).parse()
    end = statements[0].end() if statements else 0
    return _Parser(text, 0, end, known, tables or {}).parse()


def _defined_name(text: str, statement: re.Match[str]) -> tuple[str, int]:
    """Return the name a definition gives, and where its expression starts."""
    name, equals, _ = statement.group().partition("=")
    if not (equals and name.strip()):
        raise _refused(text, "a definition, name=expression", statement.start())
    return name.strip(), statement.start() + len(name) + 1


class _Parser:
    """Reads one expression from part of a text by descending through it."""

    def __init__(
        self,
        text: str,
        start: int,
        end: int,
        definitions: Mapping[str, Expression],
        tables: Mapping[str, int],
    ) -> None:
        self._text, self._end = text, end
        self._definitions, self._tables = definitions, tables
        self._tokens = [
            _Token(str(match.lastgroup), match.group(str(match.lastgroup)), match.start(0))
            for match in _TOKEN.finditer(text, start, end)
        ]
        self._tokens.reverse()  # the next one is the last: taken by pop

    def parse(self) -> Expression:
        expression = self._operation(0)
        if self._tokens:
            raise self._unexpected("an operator or the end")
        return expression

    def _operation(self, binding: int) -> Expression:
        """Read operands joined by operators that bind at least so tightly."""
        left = self._operand()
        while self._tokens and _BINDING.get(self._tokens[-1].text, -1) >= binding:
            sign = self._tokens.pop().text
            right = self._operation(_BINDING[sign] + (sign != "^"))
            left = {
                "+": Expression.__add__,
                "-": Expression.__sub__,
                "*": Expression.__mul__,
                "/": Expression.__truediv__,
                "^": Expression.__pow__,
            }[sign](left, right)
        return left

    def _operand(self) -> Expression:
        token = self._tokens.pop() if self._tokens else _Token("end", "", self._end)
        match token:
            case _Token("number"):
                return number(float(token.text))
            case _Token("name"):
                return self._definitions.get(token.text, variable(token.text))
            case _Token("function"):
                return self._function(token)
            case _Token("sign", "("):
                inner = self._operation(0)
                self._close()
                return inner
            case _Token("sign", "-"):
                return -self._operation(_MINUS)
        self._tokens.append(token)
        raise self._unexpected("a number, a name, a function or a bracket")

    def _function(self, token: _Token) -> Expression:
        operands = [self._operation(0)]
        while self._tokens and self._tokens[-1].text == ",":
            self._tokens.pop()
            operands.append(self._operation(0))
        self._close()
        num_operands = self._num_operands(token)
        if len(operands) != num_operands:
            raise _refused(self._text, f"{num_operands} operands of {token.text}", token.start)
        if token.text in self._tables or token.text not in _SHORTHANDS:
            return call(token.text, *operands)
        return operands[0] ** number(_SHORTHANDS[token.text])

    def _num_operands(self, token: _Token) -> int:
        if token.text in self._tables:
            return self._tables[token.text]
        if token.text in NAMED:
            return NAMED[token.text].num_operands
        if token.text in _SHORTHANDS:
            return 1
        raise _refused(self._text, "a function of OpenMM's", token.start)

    def _close(self) -> None:
        if not (self._tokens and self._tokens[-1].text == ")"):
            raise self._unexpected("a closing bracket")
        self._tokens.pop()

    def _unexpected(self, expected: str) -> InputError:
        start = self._tokens[-1].start if self._tokens else self._end
        return _refused(self._text, expected, start)


def _refused(text: str, expected: str, start: int) -> InputError:
    start += len(text[start:]) - len(text[start:].lstrip())
    found = repr(text[start : start + 20]) if text[start:].strip() else "the end"
    return InputError(
        f"expression {text!r}",
        expected=f"{expected} at character {start + 1}",
        got=found,
        remedy="write it as OpenMM's custom forces have it",
    )
