"""What the sections of params.yaml have in common."""

from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
UnitFloat = Annotated[float, Field(ge=0, lt=1)]


def _once(values: list[Any]) -> list[Any]:
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ValueError(f"{twice[0]} is named twice in {values}")
    return values


ONCE = AfterValidator(_once)
"""Of a list: no value twice, which would be made twice, to the same files."""


class ParamsError(ValueError):
    """params.yaml cannot be read, or holds a key or a value that no stage understands."""


class Section(BaseModel):
    """A block of params.yaml: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def known(kind: str, name: str, choices: Any) -> Any:
    """Return `name` if it is one of the Literal `choices`; else a ParamsError that lists them."""
    if name not in get_args(choices):
        raise ParamsError(f"unknown {kind} {name!r}: choose from {', '.join(get_args(choices))}")
    return name
