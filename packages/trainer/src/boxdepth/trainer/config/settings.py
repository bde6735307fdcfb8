"""What a part can be told: a small frozen value, defined beside the code that uses it.

A run's configuration is made of these very values, so that no setting and no default has a second
home.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Scale = Annotated[float, Field(gt=0, le=1e6)]
Supervision = Literal["boxes", "masks", "mixed"]
"""What masks are learnt from; `mixed`: from a mask where the annotation has one."""


def ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    """The values, each larger than the one before.

    Raises:
        ValueError: they are not.
    """
    if any(a >= b for a, b in pairwise(values)):
        raise ValueError("expected ascending numbers")
    return values


def in_order(values: tuple[int, ...]) -> tuple[int, ...]:
    """The values, none smaller than the one before.

    Raises:
        ValueError: they are not.
    """
    if list(values) != sorted(values):
        raise ValueError("expected ascending numbers")
    return values


Ascending = Annotated[tuple[NonNegative, ...], AfterValidator(ascending)]
InOrder = Annotated[tuple[NonNegative, ...], AfterValidator(in_order)]
"""Neighbours may be equal, as where a schedule is cut to a few steps."""

Own = TypeVar("Own", bound=BaseModel)


class Settings(BaseModel):
    """Base of every settings value: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: object, info: ValidationInfo) -> object:
        """A truth value is no number, and no name or path holds a zero byte."""
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, bool) and bool not in kinds and kinds & {int, float}:
                raise ValueError(f"expected a number, found {str(item).lower()}")
            if isinstance(item, str) and "\0" in item:
                raise ValueError("a zero byte stands in it")
        return value

    def changed(self: Own, **fields: object) -> Own:
        """A copy with other values in these fields, validated as if written out.

        Raises:
            ValidationError: an unknown field, or a value that it can't have.
        """
        return type(self).model_validate({**dict(self), **fields})


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of, whatever they are wrapped in."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)
