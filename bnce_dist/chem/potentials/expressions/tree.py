"""Expressions as trees of functions, and their derivatives as further expressions.

Equal expressions are one object. Whatever several results have in common is then found by
identity and computed once.
"""

import functools
from dataclasses import dataclass

from bnce_dist.chem.potentials.expressions.functions import FUNCTIONS
from bnce_dist.core.errors import InputError


class Expression:
    """A formula of named variables; ``+ - * / **`` and ``call`` make larger ones."""

    def __add__(self, other: "Expression") -> "Expression":
        return call("add", self, other)

    def __sub__(self, other: "Expression") -> "Expression":
        return call("subtract", self, other)

    def __mul__(self, other: "Expression") -> "Expression":
        return call("multiply", self, other)

    def __truediv__(self, other: "Expression") -> "Expression":
        # Quotients are products, so that reciprocals are shared and their powers multiplied out.
        return self * other ** number(-1)

    def __pow__(self, other: "Expression") -> "Expression":
        return call("power", self, other)

    def __neg__(self) -> "Expression":
        return call("negate", self)


@dataclass(frozen=True, eq=False)
class Number(Expression):
    """A constant."""

    value: float


@dataclass(frozen=True, eq=False)
class Variable(Expression):
    """A named input."""

    name: str


@dataclass(frozen=True, eq=False)
class Call(Expression):
    """A function of other expressions: one of ``FUNCTIONS``, or a tabulated one."""

    function: str
    operands: tuple[Expression, ...]


def number(value: float) -> Number:
    """Return the constant."""
    return _number(float(value))


@functools.cache
def _number(value: float) -> Number:
    return Number(value)


@functools.cache
def variable(name: str) -> Variable:
    """Return the variable of that name."""
    return Variable(name)


@functools.cache
def call(function: str, *operands: Expression) -> Expression:
    """Return a function of expressions, simplified where that is plain."""
    if function in FUNCTIONS and all(isinstance(operand, Number) for operand in operands):
        values = [operand.value for operand in operands if isinstance(operand, Number)]
        return number(FUNCTIONS[function].of_numbers(*values))
    return _simplified(function, *operands) or Call(function, operands)


ZERO, ONE = number(0), number(1)


def _simplified(function: str, *operands: Expression) -> Expression | None:
    """Return what neutral elements and equal branches leave of a call, or None."""
    match function, operands:
        case "add", (x, y) if y is ZERO:
            return x
        case "add", (x, y) if x is ZERO:
            return y
        case "subtract", (x, y) if y is ZERO:
            return x
        case "subtract", (x, y) if x is ZERO:
            return -y
        case "multiply", (x, y) if x is ZERO or y is ZERO:
            return ZERO
        case "multiply", (x, y) if x is ONE:
            return y
        case "multiply", (x, y) if y is ONE:
            return x
        case "negate", (Call("negate", (x,)),):
            return x
        case "power", (x, Number(exponent)):
            return _simplified_power(x, exponent)
        case "select", (_, x, y) if x is y:
            return x
        case "select", (test, Call("select", (same, x, _)), y) if same is test:
            return call("select", test, x, y)
        case "select", (test, x, Call("select", (same, _, y))) if same is test:
            return call("select", test, x, y)
    return None


def _simplified_power(base: Expression, exponent: float) -> Expression | None:
    if exponent in (0.0, 1.0):
        return base if exponent else ONE
    if exponent == 0.5:
        return call("sqrt", base)
    match base:
        case Call("power", (inner, Number(first))) if first.is_integer() and exponent.is_integer():
            return inner ** number(first * exponent)
    return None


def derivative(expression: Expression, name: str) -> Expression:
    """Return the derivative by a variable.

    A ``select`` becomes a ``select`` of derivatives: what the branch not taken would give, even
    if it is not a number, does not enter. Steps have the derivative zero.

    Raises: InputError: a tabulated function of something that depends on the variable.
    """

    @functools.cache
    def by_variable(node: Expression) -> Expression:
        if isinstance(node, Call):
            slopes = [by_variable(operand) for operand in node.operands]
            if all(slope is ZERO for slope in slopes):
                return ZERO
            if node.function not in FUNCTIONS:
                raise InputError(
                    f"function {node.function}",
                    expected="a table of parameters alone",
                    got=f"one that depends on {name}",
                    remedy="write it as an expression",
                )
            return chain_rule(node.function, node.operands, slopes)
        return ONE if node is variable(name) else ZERO

    return by_variable(expression)


def chain_rule(
    function: str, operands: tuple[Expression, ...], slopes: list[Expression]
) -> Expression:
    """Return the derivative of a function whose operands have these derivatives."""
    match function, operands, slopes:
        case "add", _, (dx, dy):
            return dx + dy
        case "subtract", _, (dx, dy):
            return dx - dy
        case "multiply", (x, y), (dx, dy):
            return dx * y + x * dy
        case "power", (x, y), (dx, dy):
            by_base = y * x ** (y - ONE) * dx
            return by_base if dy is ZERO else by_base + x**y * call("log", x) * dy
        case "min", (x, y), (dx, dy):
            return call("select", call("step", y - x), dx, dy)
        case "max", (x, y), (dx, dy):
            return call("select", call("step", x - y), dx, dy)
        case "atan2", (y, x), (dy, dx):
            return (x * dy - y * dx) / (x * x + y * y)
        case "select", (test, _, _), (_, dx, dy):
            return call("select", test, dx, dy)
        case _, (x,), (dx,):
            return _slope(function, x) * dx
    raise AssertionError(function)


def _slope(function: str, x: Expression) -> Expression:
    """Return the derivative of a function of one operand by it."""
    same = call(function, x)
    match function:
        case "negate":
            return -ONE
        case "step" | "delta" | "floor" | "ceil":
            return ZERO
        case "abs":
            return call("select", call("step", x), ONE, -ONE)
        case "sqrt":
            return number(0.5) / same
        case "exp":
            return same
        case "log":
            return ONE / x
        case "sin":
            return call("cos", x)
        case "cos":
            return -call("sin", x)
        case "tan":
            return ONE + same * same
        case "cot":
            return -(ONE + same * same)
        case "sec":
            return same * call("tan", x)
        case "csc":
            return -(same * call("cot", x))
        case "asin":
            return ONE / call("sqrt", ONE - x * x)
        case "acos":
            return -(ONE / call("sqrt", ONE - x * x))
        case "atan":
            return ONE / (ONE + x * x)
        case "sinh":
            return call("cosh", x)
        case "cosh":
            return call("sinh", x)
        case "tanh":
            return ONE - same * same
        case "erf":
            return number(1.1283791670955126) * call("exp", -(x * x))  # 2 / sqrt(pi)
        case "erfc":
            return number(-1.1283791670955126) * call("exp", -(x * x))
    raise AssertionError(function)
