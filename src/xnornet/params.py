"""params.yaml as frozen, checked objects: an unknown or ill-typed key is an error that names it.

There are no defaults here: params.yaml has every number, once.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML, YAMLError

Dataset = Literal["mnist", "cifar10", "digits", "shapes"]
Variant = Literal["float", "xnor"]
Axis = Literal["input_channels", "output_channels", "filter_size", "image_size", "batch", "threads"]
Gradient = Literal["corrected", "paper", "detached", "reference"]
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
    compile: Literal[True, False, "auto"]
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
    """ValueError where `xnor` says something of a residual stream that the network does not have."""
    for name in RESIDUAL:
        if getattr(xnor, name) and isinstance(model, LeNet5Params):
            raise ValueError(f"xnor.{name} is true, but {model.name} has no residual stream: set it to false")


class Short(Optimization):
    """The short trainings of a study: which arms, the recipe they share, and the size of the network and its images.

    A recipe of its own, so that an experiment with the full training leaves the study alone.
    """

    arms: Annotated[list[str], Field(min_length=2), ONCE]
    image_size: PositiveInt
    width: PositiveInt | None = None


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
        check_stream(self.model, self.xnor)
        return self

    def variant(self, name: Variant) -> Optimization:
        """The optimization of one variant (an `Xnor` for "xnor")."""
        return self.xnor if name == "xnor" else self.float

    def of_training(self, name: Variant) -> dict[str, Any]:
        """All that one training of a variant reads, as plain values."""
        return self.model_dump(exclude={"float", "xnor", "study", "seeds"} - {name})


BINARIZATION = [key for key in Xnor.model_fields if key not in Optimization.model_fields]
"""What an XNOR network's training has beside the float twin's."""


class Arm(Section):
    """What one arm of the study has that the base has not; the base has everything.

    `against`: the arm that it is compared with, a data set's first if not given.
    """

    against: str | None = None
    gradient: Gradient | None = None
    input_scaling: bool | None = None
    output_norm: bool | None = None
    residual_relu: bool | None = None
    normed_shortcut: bool | None = None
    centre: bool | None = None
    clamp: bool | None = None
    learning_rate: Annotated[PositiveFloat, Field(allow_inf_nan=False)] | None = None
    weight_decay: NonNegativeFloat | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it says how to binarize in every respect."""
        return all(getattr(self, key) is not None for key in BINARIZATION)


class Study(Section):
    """Many short trainings of XNOR networks: `seeds` of each arm, the others compared with a data set's first."""

    seeds: Annotated[int, Field(ge=2)]
    arms: Annotated[dict[str, Arm], Field(min_length=2)]

    @property
    def base(self) -> Arm:
        """The one arm that has everything. Not the first: to DVC, the order of a mapping is no change."""
        return next(arm for arm in self.arms.values() if arm.is_complete)

    @model_validator(mode="after")
    def _one_base(self) -> "Study":
        complete = [name for name, arm in self.arms.items() if arm.is_complete]
        if len(complete) != 1:
            raise ValueError(
                f"one arm must give all of {', '.join(BINARIZATION)}, the others what they change: "
                + (f"{' and '.join(complete)} give all" if complete else "none does")
            )
        return self

    @model_validator(mode="after")
    def _compared_with_arms(self) -> "Study":
        names = list(self.arms)
        for place, (name, arm) in enumerate(self.arms.items()):
            if arm.against is not None and arm.against not in names[:place]:
                raise ValueError(f"{name} is compared with {arm.against}, which is no arm before it")
        return self


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


class Params(Section):
    """All of params.yaml."""

    datasets: Annotated[list[Dataset], Field(min_length=1), ONCE]
    variants: Annotated[list[Variant], Field(min_length=1), ONCE]
    runtime: Runtime
    mnist: DatasetParams
    cifar10: DatasetParams
    digits: DatasetParams
    shapes: DatasetParams
    study: Study
    bench: Bench
    sweep: Sweep

    def dataset(self, name: str) -> DatasetParams:
        """The block of one data set; ParamsError, naming the known ones, if there is none of that name."""
        return getattr(self, known("data set", name, Dataset))


def known(kind: str, name: str, choices: Any) -> Any:
    """Return `name` if it is one of the Literal `choices`; else a ParamsError that lists them."""
    if name not in get_args(choices):
        raise ParamsError(f"unknown {kind} {name!r}: choose from {', '.join(get_args(choices))}")
    return name


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml; ParamsError names every wrong key with its value."""
    try:
        # DVC's own reader, so that no value means one thing to DVC and another to a stage (`0100`, `1:30`, `yes`).
        values = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} not found: run from the repository's root") from None
    except (YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that is none
        raise ParamsError(f"{path} is not valid YAML: {_place(error)}") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError("\n".join(_describe(str(path), problem) for problem in error.errors())) from None


def _place(error: Exception) -> str:
    """What is wrong with a YAML file and where, in one line if the error knows it."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    return f"{problem}, line {mark.line + 1}" if problem and mark else str(error)


def _describe(path: str, problem: Any) -> str:
    place = ".".join(str(p) for p in problem["loc"] if p not in ("lenet5", "resnet18"))
    where = f"{path}: {place}" if place else path
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown parameter"
    if problem["type"] == "missing":
        return f"{where}: missing"
    seen = problem["input"]
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" + (f" (it is {seen!r})" if isinstance(seen, str | int | float) else "")
