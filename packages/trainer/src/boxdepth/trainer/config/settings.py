"""What a part can be told: a small frozen value, defined beside the code that uses it.

A run's configuration is made of these very values, so that no setting and no default has a second
home.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Scale = Annotated[float, Field(gt=0)]
Supervision = Literal["boxes", "masks", "mixed"]
"""What masks are learnt from; `mixed`: from a mask where the annotation has one."""

Own = TypeVar("Own", bound=BaseModel)


class Settings(BaseModel):
    """Base of every settings value: immutable, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    def changed(self: Own, **fields: object) -> Own:
        """A copy with other values in these fields, validated as if written out.

        Raises:
            ValidationError: an unknown field, or a value that it can't have.
        """
        return type(self).model_validate({**dict(self), **fields})
