"""What decides a training: data, network, recipe."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from xnornet.params.values import ONCE, NonNegativeFloat, NonNegativeInt, ParamsError, Section, Seed, UnitFloat

Variant = Literal["float", "xnor"]
Gradient = Literal["corrected", "paper", "detached", "reference"]


def _no_number(value: Any) -> Any:
    """Literal compares, and 1 is equal to True."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("must be True, False or 'auto'")
    return value


class Runtime(Section):
    """Where training runs, and its seed."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: NonNegativeInt
    seed: Seed


class Data(Section):
    """How a set is made, where it does not come as training and test images: shapes are drawn, digits divided."""

    seed: Seed | None = None
    train: PositiveInt | None = None
    test: PositiveInt | None = None


class Split(Section):
    """How many of the training images are for validation, and the seed that chooses them."""

    seed: Seed
    validation: PositiveInt


class LeNet5Params(Section):
    """LeNet-5 has one size."""

    name: Literal["lenet5"]


class ResNet18Params(Section):
    """ResNet-18 for 32x32 images: channels of the first stage, and what a shortcut spans."""

    name: Literal["resnet18"]
    width: PositiveInt
    shortcut: Literal["block", "conv"]


class Augment(Section):
    """Random changes of the training images: mirror, pixels of padding to crop from, degrees, zoom."""

    flip: bool
    crop: NonNegativeInt
    rotate: Annotated[float, Field(ge=0, le=180)]
    scale: UnitFloat


class Training(Section):
    """What both variants of a data set share."""

    channels_last: bool
    augment: Augment


class Restart(Section):
    """After so many epochs, the schedule once more, up to another learning rate, with an optimizer that starts anew."""

    after: PositiveInt
    learning_rate: Annotated[PositiveFloat, Field(allow_inf_nan=False)]


class Optimization(Section):
    """Length, batches, number format, optimizer and schedule of one training; `restarts` only where there are any."""

    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]  # BatchNorm needs more than one image
    precision: Literal["float32", "bfloat16"]
    compile: Annotated[Literal[True, False, "auto"], BeforeValidator(_no_number)]
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: Annotated[PositiveFloat, Field(allow_inf_nan=False)]
    momentum: UnitFloat
    weight_decay: NonNegativeFloat
    label_smoothing: UnitFloat
    cutout: NonNegativeInt
    cutmix: Annotated[float, Field(ge=0, le=1)]
    schedule: Literal["cosine", "linear", "constant"]
    warmup_epochs: NonNegativeFloat
    restarts: list[Restart] | None = None

    def cycles(self) -> list[tuple[int, int, float]]:
        """(first epoch, epoch after the last, peak learning rate) of each passage of the schedule."""
        restarts = self.restarts or []
        starts = [0, *(restart.after for restart in restarts)]
        peaks = [self.learning_rate, *(restart.learning_rate for restart in restarts)]
        return list(zip(starts, [*starts[1:], self.epochs], peaks, strict=True))

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Optimization":
        for start, end, _ in self.cycles():
            if self.warmup_epochs < end - start:
                continue
            if self.restarts:
                raise ValueError(
                    f"restarts must be in order and before the end, and each part longer than warmup_epochs "
                    f"{self.warmup_epochs}: epochs {start} to {end} are not"
                )
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be less than epochs {self.epochs}")
        return self


class Xnor(Optimization):
    """The same for an XNOR network, and how it is binarized."""

    gradient: Gradient
    input_scaling: bool
    output_norm: bool
    residual_relu: bool
    normed_shortcut: bool
    centre: bool
    clamp: bool


RESIDUAL = ("residual_relu", "normed_shortcut")
"""What an `Xnor` says of a residual stream."""


def check_stream(model: LeNet5Params | ResNet18Params, xnor: Xnor) -> None:
    """ParamsError where `xnor` says something of a residual stream that the network does not have."""
    for name in RESIDUAL:
        if getattr(xnor, name) and isinstance(model, LeNet5Params):
            raise ParamsError(f"{name} is true, but {model.name} has no residual stream: set it to false")


SIZES = {"lenet5": (28, 28), "resnet18": (8, 32)}
"""Pixels a side of the smallest and the largest images that a network takes. Of 8, a ResNet's last stage has one."""


class Short(Optimization):
    """The short trainings of a study: which arms, the recipe they share, and the size of the network and its images.

    A recipe of its own, so that an experiment with the full training leaves the study alone. `width`, and `validation`
    in place of `split.validation`, only where they differ from the full training's.
    """

    arms: Annotated[list[str], Field(min_length=2), ONCE]
    image_size: PositiveInt
    width: PositiveInt | None = None
    validation: PositiveInt | None = None


class DatasetParams(Section):
    """Everything about one data set, the two networks trained on it, with how many seeds, and the short trainings."""

    data: Data
    split: Split
    model: Annotated[LeNet5Params | ResNet18Params, Field(discriminator="name")]
    seeds: PositiveInt
    training: Training
    float: Optimization
    xnor: Xnor
    study: Short

    @model_validator(mode="after")
    def _residual_stream(self) -> "DatasetParams":
        try:
            check_stream(self.model, self.xnor)
        except ParamsError as error:
            raise ValueError(f"xnor.{error}") from None
        return self

    @model_validator(mode="after")
    def _size_of_the_study(self) -> "DatasetParams":
        smallest, largest = SIZES[self.model.name]
        if not smallest <= self.study.image_size <= largest:
            wanted = f"{smallest} to {largest}" if smallest < largest else largest
            raise ValueError(f"study.image_size must be {wanted} for {self.model.name}, not {self.study.image_size}")
        if self.study.width and not isinstance(self.model, ResNet18Params):
            raise ValueError(f"study.width is {self.study.width}, but {self.model.name} has no width: remove it")
        return self

    def variant(self, name: Variant) -> Optimization:
        """The optimization of one variant (an `Xnor` for "xnor")."""
        return self.xnor if name == "xnor" else self.float

    def of_training(self, name: Variant) -> dict[str, Any]:
        """All that one training of a variant reads, as plain values."""
        return self.model_dump(exclude={"float", "xnor", "study", "seeds"} - {name})
