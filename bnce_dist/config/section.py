"""The base of every group of settings, and the types settings have."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Interpolant = Literal["trigonometric", "linear"]
Angle = Annotated[float, Field(ge=-3.1416, le=3.1416)]
# YAML writes sequences as lists; everything else keeps the strict types of `Section`.
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Section(BaseModel):
    """A frozen group of settings: no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def require(self, condition: bool, expected: str, *names: str) -> None:
        """Raise if settings that are fine one by one contradict each other."""
        if not condition:
            got = ", ".join(f"{name} = {getattr(self, name)}" for name in names)
            context = {"expected": expected, "got": got}
            raise PydanticCustomError("contradiction", "{expected}", context)
