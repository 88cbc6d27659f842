"""The values a setting may take in a sweep, and points of the space they span."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from bnce_dist.config.section import Section
from bnce_dist.core.random import seed_from

Scalar = bool | int | float | str | None
Bounds = Annotated[tuple[float, float], Field(strict=False)]
IntegerBounds = Annotated[tuple[int, int], Field(strict=False)]
Choices = Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1)]

MAX_CORNERS = 4096


class Dimension(Section):
    """The values of one setting: one of the four kinds."""

    uniform: Bounds | None = None
    """Lower and upper bound."""
    log_uniform: Bounds | None = None
    """Lower and upper bound of a number that is uniform in its logarithm."""
    integers: IntegerBounds | None = None
    """Smallest and largest integer."""
    choice: Choices | None = None
    """A list of values."""

    @model_validator(mode="after")
    def _check_kind(self) -> "Dimension":
        kinds = [name for name, value in self if value is not None]
        self.require(len(kinds) == 1, "one kind of values", *(kinds or Dimension.model_fields))
        if self.choice is None:
            low, high = self.bounds
            self.require(low < high, "a lower bound below the upper one", kinds[0])
            self.require(not self.log_uniform or low > 0, "bounds above zero", kinds[0])
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound; a choice has none."""
        bounds = self.uniform or self.log_uniform or self.integers
        if bounds is None:
            raise ValueError("a choice has no bounds")
        return bounds

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """The values that decide whether all of them are possible."""
        return self.bounds if self.choice is None else self.choice

    def sample(self, rng: np.random.Generator) -> Scalar:
        """Draw a value."""
        if self.choice is not None:
            return self.choice[rng.integers(len(self.choice))]
        if self.integers is not None:
            return int(rng.integers(*self.integers, endpoint=True))
        low, high = self.bounds
        if self.log_uniform is not None:
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        return float(rng.uniform(low, high))

    def clip(self, value: Any) -> Any:
        """Return the possible value nearest to a number; what is chosen stays."""
        if self.choice is not None:
            return value
        low, high = self.bounds
        return min(max(value, low), high)


def random_point(space: Mapping[str, Dimension], seed: int, number: int) -> dict[str, Scalar]:
    """Return the settings of the trial ``number``, a function of the seed and the number."""
    rng = np.random.default_rng(seed_from(seed, "trial", number))
    return {key: dimension.sample(rng) for key, dimension in space.items()}


def corners(space: Mapping[str, Dimension]) -> Iterator[dict[str, Scalar]]:
    """Yield the corners of the space, at most ``MAX_CORNERS`` of them."""
    extremes = itertools.product(*(dimension.extremes for dimension in space.values()))
    for values in itertools.islice(extremes, MAX_CORNERS):
        yield dict(zip(space, values, strict=True))
