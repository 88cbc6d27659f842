import random

import openmm
import pytest
import torch
from torch import Tensor

from bnce_dist.chem.potentials.expressions.grammar import parse
from bnce_dist.chem.potentials.expressions.program import Program
from bnce_dist.chem.potentials.expressions.tree import derivative
from bnce_dist.core.errors import InputError

NAMES = ("x", "y", "z")
# One argument inside the domain of each function, of x in (0.2, 0.9).
UNARY = (
    *("sqrt(x)", "exp(x)", "log(x)", "sin(x)", "cos(x)", "sec(x)", "csc(x)", "tan(x)", "cot(x)"),
    *("asin(x)", "acos(x)", "atan(x)", "sinh(x)", "cosh(x)", "tanh(x)", "erf(x)", "erfc(x)"),
    *("step(x-0.5)", "delta(x)", "square(x)", "cube(x)", "recip(x)", "abs(x-0.5)"),
    *("floor(3*x)", "ceil(3*x)"),
)
# What a reader of the text could take for something else.
PRECEDENCE = (
    *("-x^2", "2^-x", "x/y*z", "x-y-z", "x^y^z", "-x*y", "x*-y+z", "2^-x^2", "x-y+z", "x/y/z"),
    *("x--y", "-(-x)", "(x+y)*z", "2^-x*3", "x^-2", "-2^2*x", "1.5e-1*x", ".5*x+2.", "x^0.5"),
    *("x^0+y^1", "x^12/y^6", "(x/y)^3", "x ^ 2 - 1", "2E1*x"),
)
SEVERAL = (
    *("min(x,y)", "max(x,y)", "atan2(x-0.5,y-0.5)", "select(step(x-0.5),y,z)", "select(x,y,z)"),
    "select(step(x-0.5),log(x-0.5)+sqrt(x-0.5)/(x-0.5),asin(2*x))",
    "k*(r-r0)^2; r=sqrt(x^2+y^2+z^2); r0=0.1; k=half*2; half=0.5",
    "a+x; a=b; b=c*2; a=y; c=z",
)


def by_openmm(text: str, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return OpenMM's values of an expression of x, y and z, and their gradients."""
    system = openmm.System()
    system.addParticle(1.0)
    force = openmm.CustomExternalForce(text)
    force.addParticle(0, [])
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    values, gradients = [], []
    for point in points:
        context.setPositions(point[None].numpy())
        state = context.getState(energy=True, forces=True)
        values.append(state.getPotentialEnergy()._value)
        gradients.append(-torch.from_numpy(state.getForces(asNumpy=True)._value[0]))
    return torch.tensor(values, dtype=torch.float64), torch.stack(gradients)


def by_program(text: str, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return our values, our gradients, and those of autograd through the values."""
    expression = parse(text)
    slopes = [derivative(expression, name) for name in NAMES]
    program = Program([expression, *slopes], NAMES, {})
    points = points.clone().requires_grad_()
    value, *gradient = (result.expand(len(points)) for result in program(*points.T))
    # What is constant in steps has no graph of its own.
    (by_autograd,) = torch.autograd.grad((value + 0 * points[:, 0]).sum(), points)
    return value.detach(), torch.stack(gradient, dim=1).detach(), by_autograd


def points_within(low: float, high: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(20, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("text", [*UNARY, *PRECEDENCE, *SEVERAL])
def test_equals_openmm(text: str) -> None:
    points = points_within(0.2, 0.9)
    expected, expected_gradient = by_openmm(text, points)
    value, gradient, by_autograd = by_program(text, points)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(by_autograd, expected_gradient, rtol=1e-10, atol=1e-12)


def random_expression(source: random.Random, depth: int) -> str:
    if depth == 0:
        return source.choice([*NAMES, "0.5", "2", "1e-1"])
    first, second = (random_expression(source, depth - 1) for _ in range(2))
    return source.choice(
        [
            *(f"{first}{sign}{second}" for sign in "+-*"),
            *(f"({first}){sign}{second}" for sign in "+-*"),
            *(f"{first}/(1.1+({second})^2)", f"-{first}", f"({first})^2", f"tanh({first})"),
            *(f"cos({first})", f"atan2({first},1+abs({second}))", f"max({first},{second})"),
            f"select(step({first}-{second}),{first},sqrt(1+({second})^2))",
            f"a*{second};a={first}",
        ][: 14 if depth < 4 else 15]
    )


@pytest.mark.parametrize("seed", range(40))
def test_random_expressions_equal_openmms(seed: int) -> None:
    text = random_expression(random.Random(seed), 4)
    points = points_within(-1.0, 1.0)
    expected, expected_gradient = by_openmm(text, points)
    value, gradient, by_autograd = by_program(text, points)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(by_autograd, expected_gradient, rtol=1e-9, atol=1e-9)


def test_can_be_differentiated_twice() -> None:
    x = torch.linspace(0.2, 0.9, 7, dtype=torch.float64, requires_grad=True)
    (value,) = Program([parse("exp(-x^2)/x")], ["x"], {})(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    expected = torch.exp(-x * x) * (4 * x + 2 / x + 2 / x**3)
    torch.testing.assert_close(curvature, expected.detach())


@pytest.mark.parametrize(
    "branch", ["log(x)/x", "sqrt(x)*x", "x^-12", "x^1.5", "acos(x-1)", "exp(1e4-x)*x", "log(x/y)/y"]
)
def test_a_branch_not_taken_has_no_effect_on_derivatives(branch: str) -> None:
    # At zero and below, each branch or its derivative is infinite or not a number.
    points = torch.tensor([[-1.0, 0.0, 0.3], [0.0, -1.0, 0.3], [-1e-9, 0.5, 0.3]]).double()
    text = f"select(step(x-0.1), {branch}, z*x)"
    value, gradient, by_autograd = by_program(text, points)
    torch.testing.assert_close(value, points[:, 0] * points[:, 2])
    expected = torch.stack([points[:, 2], torch.zeros(3).double(), points[:, 0]], dim=1)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(by_autograd, expected)


def test_parameters_and_tables_are_evaluated_once() -> None:
    calls = []

    def halved(x: Tensor) -> Tensor:
        calls.append(x)
        return x / 2

    expression = parse("half(k)*x^2", tables={"half": 1})
    stiffness = torch.tensor([[2.0], [6.0]], dtype=torch.float64)
    program = Program([expression], ["x"], {"k": stiffness}, {"half": halved})
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    for _ in range(3):
        (value,) = program(x)
    assert torch.equal(value, torch.tensor([[1.0, 4.0], [3.0, 12.0]], dtype=torch.float64))
    assert len(calls) == 1
    assert program.float()(x.float())[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a+*b", "expected a number, a name, a function or a bracket at character 3, got '*b'"),
        ("sin(x", "expected a closing bracket at character 6, got the end"),
        ("2x", "expected an operator or the end at character 2, got 'x'"),
        ("x)", "expected an operator or the end at character 2, got ')'"),
        ("k*x; x=", "a bracket at character 8, got the end"),
        ("k; x", "expected a definition, name=expression at character 4, got 'x'"),
        ("1+foo(x)", "expected a function of OpenMM's at character 3, got 'foo(x)'"),
        ("atan2(x)", "expected 2 operands of atan2 at character 1"),
        ("sin (x)", "expected an operator or the end at character 5"),
        ("+x", "at character 1, got '+x'"),
        ("", "at character 1, got the end"),
        ("x=1", "expected an operator or the end at character 2, got '=1'"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(openmm.OpenMMException):
        by_openmm(text, points_within(0.2, 0.9))
    with pytest.raises(InputError) as refused:
        parse(text)
    assert message in str(refused.value)


def test_refuses_unknown_variables_and_moving_tables() -> None:
    with pytest.raises(InputError, match="expected one of r, sigma, got 'sigmma'"):
        Program([parse("r*sigmma")], ["r"], {"sigma": torch.ones(1, 1)})
    with pytest.raises(InputError, match="function f: expected a table of parameters alone"):
        derivative(parse("f(2*r)", tables={"f": 1}), "r")
    assert derivative(parse("f(k)*r", tables={"f": 1}), "r") is parse("f(k)", tables={"f": 1})
