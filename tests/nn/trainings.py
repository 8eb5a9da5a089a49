"""Short trainings, and loops that have not begun."""

from typing import Any, TypeVar

from xnornet.data import Prepared
from xnornet.nn.loop import Loop, Run
from xnornet.nn.training import make_network
from xnornet.params import DatasetParams, Runtime

RUNTIME = Runtime(device="cpu", threads=1, seed=0)


def change(params: DatasetParams, **changes: Any) -> DatasetParams:
    """A copy with values of nested blocks replaced, e.g. xnor={"epochs": 2}."""
    blocks = {name: getattr(params, name).model_copy(update=values) for name, values in changes.items()}
    return params.model_copy(update=blocks)


def short(params: DatasetParams, epochs: int = 2, **changes: Any) -> DatasetParams:
    few = {"epochs": epochs, "warmup_epochs": 0.5}
    return change(params, **({"xnor": few, "float": few} | changes))


SomeLoop = TypeVar("SomeLoop", bound=Loop)


def make_loop(data: Prepared, params: DatasetParams, images: int = 50, kind: type[SomeLoop] = Loop) -> SomeLoop:  # type: ignore[assignment]
    """The loop of a float training that has not begun."""
    return kind(Run(make_network(data, params, "float", data.train)), params.training, params.float, images)
