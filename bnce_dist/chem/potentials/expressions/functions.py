"""The functions of OpenMM's expressions, as torch evaluates them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Function(NamedTuple):
    """A function of tensors.

    Args:
        evaluate: The function itself.
        num_operands: How many operands it has.
        safe: Something in the domain of its first operand, for functions that have poles, ends
            of their domain or overflow; the others take anything.
    """

    evaluate: Callable[..., Tensor]
    num_operands: int = 1
    safe: float | None = None

    def of_numbers(self, *values: float) -> float:
        """Return the function of plain numbers."""
        return self.evaluate(*(torch.tensor(x, dtype=torch.float64) for x in values)).item()


OPERATORS = {
    "add": Function(torch.add, 2),
    "subtract": Function(torch.subtract, 2),
    "multiply": Function(torch.multiply, 2),
    "power": Function(torch.pow, 2, safe=1.0),
    "negate": Function(torch.negative),
    "reciprocal": Function(torch.reciprocal, safe=1.0),
}
"""What is written with signs, or made of them."""
NAMED = {
    "sqrt": Function(torch.sqrt, safe=1.0),
    "exp": Function(torch.exp, safe=0.0),
    "log": Function(torch.log, safe=1.0),
    "sin": Function(torch.sin),
    "cos": Function(torch.cos),
    "sec": Function(lambda x: 1 / torch.cos(x), safe=1.0),
    "csc": Function(lambda x: 1 / torch.sin(x), safe=1.0),
    "tan": Function(torch.tan, safe=1.0),
    "cot": Function(lambda x: 1 / torch.tan(x), safe=1.0),
    "asin": Function(torch.asin, safe=0.0),
    "acos": Function(torch.acos, safe=0.0),
    "atan": Function(torch.atan),
    "atan2": Function(torch.atan2, 2, safe=1.0),
    "sinh": Function(torch.sinh, safe=0.0),
    "cosh": Function(torch.cosh, safe=0.0),
    "tanh": Function(torch.tanh),
    "erf": Function(torch.erf),
    "erfc": Function(torch.erfc),
    "step": Function(lambda x: (x >= 0).to(x.dtype)),
    "delta": Function(lambda x: (x == 0).to(x.dtype)),
    "min": Function(torch.minimum, 2),
    "max": Function(torch.maximum, 2),
    "abs": Function(torch.abs),
    "floor": Function(torch.floor),
    "ceil": Function(torch.ceil),
    "select": Function(lambda test, x, y: torch.where(test != 0, x, y), 3),
}
"""What is written by name: step(0) is 1, and select(c, x, y) is y only where c is 0."""
FUNCTIONS = {**OPERATORS, **NAMED}
