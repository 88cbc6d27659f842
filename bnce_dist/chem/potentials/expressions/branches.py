"""Branches of ``select`` that are harmless where they are not taken.

Autograd multiplies the derivative of a branch not taken by zero, which is not a number where that
derivative is infinite or not a number itself. Within a branch the operands of functions with
poles or limited domains are therefore exchanged for harmless ones wherever it is not taken.
"""

import functools
from collections.abc import Callable

from bnce_dist.chem.potentials.expressions.functions import FUNCTIONS
from bnce_dist.chem.potentials.expressions.tree import Call, Expression, Number, call, number


def with_safe_branches(expression: Expression, moves: Callable[[Expression], bool]) -> Expression:
    """Return an expression with the same values and safe derivatives.

    Args:
        expression: The expression.
        moves: Says what depends on an input; the rest is evaluated once and needs no care.
    """

    @functools.cache
    def safe(node: Expression) -> Expression:
        match node:
            case Call("select", (test, taken, other)):
                test = safe(test)
                return call(
                    "select",
                    test,
                    _branch(safe(taken), moves, lambda x, y: call("select", test, x, y)),
                    _branch(safe(other), moves, lambda x, y: call("select", test, y, x)),
                )
            case Call(function, operands):
                return call(function, *map(safe, operands))
        return node

    return safe(expression)


def _branch(
    branch: Expression,
    moves: Callable[[Expression], bool],
    where_taken: Callable[[Expression, Expression], Expression],
) -> Expression:
    @functools.cache
    def replace(node: Expression) -> Expression:
        if not isinstance(node, Call) or not moves(node):
            return node
        first, *rest = map(replace, node.operands)
        harmless = FUNCTIONS[node.function].safe
        if harmless is not None and moves(first) and not _is_polynomial(node):
            first = where_taken(first, number(harmless))
        return call(node.function, first, *rest)

    return replace(branch)


def _is_polynomial(node: Call) -> bool:
    match node:
        case Call("power", (_, Number(exponent))):
            return exponent > 0 and exponent.is_integer()
    return False
