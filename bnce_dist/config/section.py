"""The base of every group of settings, and the types settings have."""

import logging
import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bnce_dist.core.places import local_path

logger = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Interpolant = Literal["trigonometric", "linear"]
Angle = Annotated[float, Field(ge=-3.1416, le=3.1416)]
# YAML writes sequences as lists; everything else keeps the strict types of `Section`.
Positives = Annotated[tuple[Positive, ...], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Place = Annotated[str, AfterValidator(lambda text: os.fspath(local_path(text)))]
Places = Annotated[tuple[Place, ...], Field(strict=False)]


class Section(BaseModel):
    """A frozen group of settings: no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    left_out_unset: ClassVar[frozenset[str]] = frozenset()
    """Settings that are not written while they are unset, so that what was made by versions without
    them keeps its keys."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """What keys of earlier versions are called now; they are read, with a line that says so."""

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        return {name: v for name, v in content.items() if v or name not in self.left_out_unset}

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name in values.keys() & cls.renamed.keys():
            logger.warning("configuration key %s is now called %s", name, cls.renamed[name])
        return {cls.renamed.get(name, name): value for name, value in values.items()}

    def require(self, condition: bool, expected: str, *names: str) -> None:
        """Raise if settings that are fine one by one contradict each other."""
        if not condition:
            got = ", ".join(f"{name} = {getattr(self, name)}" for name in names)
            context = {"expected": expected, "got": got}
            raise PydanticCustomError("contradiction", "{expected}", context)
