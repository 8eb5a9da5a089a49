"""The study: what its arms change, and the parameters of each of their trainings."""

from typing import Annotated

from pydantic import Field, PositiveFloat, model_validator

from xnornet.params.trainings import DatasetParams, Gradient, Optimization, Xnor, check_stream
from xnornet.params.values import NonNegativeFloat, ParamsError, Section

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
    """Many short trainings of XNOR networks: `seeds` of each arm, compared with another one's."""

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


def arms_of(params: DatasetParams, plan: Study) -> dict[str, Arm]:
    """The arms of this data set; ParamsError if one is unknown, or cannot be, or two are the same training."""
    unknown = [name for name in params.study.arms if name not in plan.arms]
    if unknown:
        raise ParamsError(f"study.arms: unknown arm {unknown[0]!r}: choose from {', '.join(map(repr, plan.arms))}")
    seen: dict[str, str] = {}
    for name in params.study.arms:
        try:
            settings = settings_of(params, plan, plan.arms[name])
        except ParamsError as error:
            raise ParamsError(f"study.arms: {name!r}: {error}") from None
        twin = seen.setdefault(settings.xnor.model_dump_json(), name)
        if twin != name:
            raise ParamsError(f"study.arms: {name!r} is the same training as {twin!r}: remove one of them")
    return {name: plan.arms[name] for name in params.study.arms}


def compared_with(arms: dict[str, Arm]) -> dict[str, str]:
    """The arm that each one is compared with, the first with itself; ParamsError if a data set lacks it."""
    first = next(iter(arms))
    names = {name: arm.against or first for name, arm in arms.items()} | {first: first}
    for name, other in names.items():
        if other not in arms:
            raise ParamsError(f"study.arms: {name!r} is compared with {other!r}: add that arm")
    return names


def settings_of(params: DatasetParams, plan: Study, arm: Arm) -> DatasetParams:
    """The parameters of one training: the study's recipe and size, and what the base and this arm say."""
    short = params.study
    model = params.model.model_copy(update={"width": short.width} if short.width else {})
    split = params.split.model_copy(update={"validation": short.validation} if short.validation else {})
    recipe = {name: getattr(short, name) for name in Optimization.model_fields}
    base, own = (each.model_dump(exclude_none=True, exclude={"against"}) for each in (plan.base, arm))
    xnor = Xnor.model_validate(recipe | base | own)
    check_stream(params.model, xnor)
    return params.model_copy(update={"split": split, "model": model, "xnor": xnor})
