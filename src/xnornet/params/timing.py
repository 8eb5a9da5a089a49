"""What is timed, and how often."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from xnornet.params.values import ONCE, NonNegativeInt, Section, known

Axis = Literal["input_channels", "output_channels", "filter_size", "image_size", "batch", "threads"]
LayerName = Literal["64@56", "128@28", "256@14", "512@7", "lenet-conv", "lenet-linear"]


class Bench(Section):
    """Timing of whole networks; 0 threads means every core."""

    batches: Annotated[list[PositiveInt], Field(min_length=1), ONCE]
    threads: Annotated[list[NonNegativeInt], Field(min_length=1), ONCE]
    repeats: Annotated[int, Field(ge=5)]
    seconds_per_point: Annotated[PositiveFloat, Field(allow_inf_nan=False)]
    peers: bool

    @model_validator(mode="after")
    def _one_thread(self) -> "Bench":
        if 1 not in self.threads:
            raise ValueError("threads must include 1, on which the report compares")
        return self


class Layers(Section):
    """Timing of single layers."""

    names: Annotated[list[LayerName], Field(min_length=1), ONCE]
    repeats: Annotated[int, Field(ge=5)]


class Sweep(Section):
    """The values that each sweep of a binary layer's shape visits."""

    passes: PositiveInt
    repeats: Annotated[int, Field(ge=5)]
    seconds_per_point: Annotated[PositiveFloat, Field(allow_inf_nan=False)]
    input_channels: Annotated[list[PositiveInt], Field(min_length=1), ONCE]
    output_channels: Annotated[list[PositiveInt], Field(min_length=1), ONCE]
    filter_size: Annotated[list[PositiveInt], Field(min_length=1), ONCE]
    image_size: Annotated[list[PositiveInt], Field(min_length=1), ONCE]
    batch: Annotated[list[PositiveInt], Field(min_length=1), ONCE]
    threads: Annotated[list[PositiveInt], Field(min_length=1), ONCE]

    def values(self, axis: str) -> list[int]:
        """The values of one sweep; ParamsError, naming the known ones, if there is none of that name."""
        return getattr(self, known("sweep", axis, Axis))
