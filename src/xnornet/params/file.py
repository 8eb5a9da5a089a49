"""All of params.yaml, read and checked."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from xnornet.params.arms import Study, arms_of, compared_with
from xnornet.params.timing import Bench, Layers, Sweep
from xnornet.params.trainings import DatasetParams, Runtime, Variant
from xnornet.params.values import ONCE, ParamsError, Section, known

Dataset = Literal["mnist", "cifar10", "digits", "shapes"]


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
    layers: Layers
    sweep: Sweep

    @model_validator(mode="after")
    def _arms(self) -> "Params":
        for name in get_args(Dataset):
            try:
                compared_with(arms_of(self.dataset(name), self.study))
            except ParamsError as error:
                raise ValueError(f"{name}.{error}") from None
        return self

    def dataset(self, name: str) -> DatasetParams:
        """The block of one data set; ParamsError, naming the known ones, if there is none of that name."""
        return getattr(self, known("data set", name, Dataset))


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
