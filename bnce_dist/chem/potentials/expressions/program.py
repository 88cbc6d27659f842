"""Expressions made ready for torch: a list of steps over tensors."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from bnce_dist.chem.potentials.expressions.branches import with_safe_branches
from bnce_dist.chem.potentials.expressions.functions import FUNCTIONS
from bnce_dist.chem.potentials.expressions.tree import (
    Call,
    Expression,
    Number,
    Variable,
    call,
    variable,
)
from bnce_dist.core.errors import InputError

# Powers up to this one are multiplied out, which is faster than torch.pow.
_MAX_MULTIPLIED_POWER = 64
Table = Callable[..., Tensor]


class Program(nn.Module):
    """Several expressions evaluated together, differentiable by autograd.

    What depends on parameters alone is evaluated once, in float64; what several results have in
    common, once per call.

    Args:
        results: The expressions.
        inputs: Names of the variables that every call gives.
        parameters: The other variables, float64 tensors that broadcast with the inputs.
        tables: Tabulated functions.

    Raises: InputError: a variable is neither an input nor a parameter.
    """

    def __init__(
        self,
        results: Sequence[Expression],
        inputs: Sequence[str],
        parameters: Mapping[str, Tensor],
        tables: Mapping[str, Table] | None = None,
    ) -> None:
        super().__init__()
        moves = depends_on(inputs)
        roots = [_multiplied_out(with_safe_branches(result, moves)) for result in results]
        nodes = _operands_first(roots, moves)
        evaluate = _evaluation(parameters, tables or {}, inputs)
        constants = [node for node in nodes if not moves(node)]
        for index, node in enumerate(constants):
            self.register_buffer(f"table{index}", evaluate(node).clone())
        steps = [node for node in nodes if isinstance(node, Call) and moves(node)]
        ordered: list[Expression] = [*map(variable, inputs), *constants, *steps]
        slot = {node: index for index, node in enumerate(ordered)}
        self._steps = tuple(
            (step.function, tuple(slot[operand] for operand in step.operands)) for step in steps
        )
        self._results = tuple(slot[root] for root in roots)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """Return the results, which broadcast with inputs and parameters."""
        values = [*inputs, *self.buffers()]
        for function, operands in self._steps:
            values.append(FUNCTIONS[function].evaluate(*[values[index] for index in operands]))
        return [values[index] for index in self._results]


def depends_on(names: Collection[str]) -> Callable[[Expression], bool]:
    """Return a function that says whether an expression depends on any of these variables."""

    @functools.cache
    def depends(node: Expression) -> bool:
        if isinstance(node, Call):
            return any(map(depends, node.operands))
        return isinstance(node, Variable) and node.name in names

    return depends


@functools.cache
def _multiplied_out(node: Expression) -> Expression:
    """Return the expression with whole powers as products, negative ones of the reciprocal."""
    if not isinstance(node, Call):
        return node
    operands = [_multiplied_out(operand) for operand in node.operands]
    match node.function, operands:
        case "power", (base, Number(exponent)) if (
            exponent.is_integer() and abs(exponent) <= _MAX_MULTIPLIED_POWER
        ):
            if exponent < 0:
                base = call("reciprocal", base)
            return _product(base, abs(int(exponent)))
    return call(node.function, *operands)


def _product(base: Expression, count: int) -> Expression:
    """Return the base taken so often as a factor, by squaring."""
    if count == 1:
        return base
    half = _product(base, count // 2)
    return half * half * base if count % 2 else half * half


def _operands_first(
    roots: Sequence[Expression], moves: Callable[[Expression], bool]
) -> list[Expression]:
    """Return the nodes of expressions, operands before what is made of them.

    What does not move is a leaf.
    """
    found: dict[Expression, None] = {}

    def visit(node: Expression) -> None:
        if node not in found:
            if isinstance(node, Call) and moves(node):
                for operand in node.operands:
                    visit(operand)
            found[node] = None

    for root in roots:
        visit(root)
    return list(found)


def _evaluation(
    parameters: Mapping[str, Tensor], tables: Mapping[str, Table], inputs: Sequence[str]
) -> Callable[[Expression], Tensor]:
    """Return the function that evaluates expressions of parameters alone."""

    @functools.cache
    def evaluate(node: Expression) -> Tensor:
        match node:
            case Number(value):
                return torch.tensor(value, dtype=torch.float64)
            case Call(function, operands):
                values = [evaluate(operand) for operand in operands]
                if function in tables:
                    return tables[function](*values)
                return FUNCTIONS[function].evaluate(*values)
            case Variable(name) if name in parameters:
                return parameters[name]
            case Variable(name):
                known = [*inputs, *parameters]
                raise InputError.unknown("variable of an expression", name, known)
        raise AssertionError(node)

    return evaluate
