"""How far an accuracy depends on the seed: the full training once more with others, each tested once."""

import json
import math
from pathlib import Path

import pandas as pd

from xnornet.data import Prepared
from xnornet.files import write_json
from xnornet.nn.checkpoint import Checkpoints, earlier_result, key
from xnornet.nn.record import save_and_test
from xnornet.nn.training import fit
from xnornet.params import DatasetParams, Runtime, Variant


class SeedsError(ValueError):
    """The training with the first seed left no metrics to begin with."""


COLUMNS = ("test_accuracy", "validation_accuracy")

SOURCE = Path(__file__).read_text(encoding="utf-8")


def train_seeds(
    data: Prepared,
    params: DatasetParams,
    variant: Variant,
    runtime: Runtime,
    *,
    first: dict[str, float],
    finished: Path,
    data_md5: str,
    title: str,
) -> pd.DataFrame:
    """Train and test a network with the seeds after `runtime.seed`, until there are `params.seeds` of it.

    first: the row of the network that has `runtime.seed`. finished: a folder for results and checkpoints, so that a
    killed call goes on where it was, and one for more seeds with the next; `data_md5` tells other data from these.
    Returns a row a training: seed, test_accuracy, validation_accuracy (percent).
    """
    rows = [{"seed": runtime.seed, **first}]
    for seed in range(runtime.seed + 1, runtime.seed + params.seeds):
        of_run = runtime.model_copy(update={"seed": seed})
        digest = key(SOURCE, variant, params.of_training(variant), of_run.model_dump(), data_md5)
        path = finished / f"{digest}.json"
        result = earlier_result(path, COLUMNS, f"{title}, seed {seed}")
        checkpoints = Checkpoints(finished / f"{variant}-{seed}", digest)
        if result is None:
            run = fit(data, params, variant, of_run, checkpoints=checkpoints, title=f"{title}, seed {seed}")
            model = finished / f"{digest}.safetensors"
            _, accuracy, _ = save_and_test(run, model, data, params, variant, {})
            model.unlink()
            values = accuracy, run.curve[-1]["validation_accuracy"]
            result = {name: round(value, 4) for name, value in zip(COLUMNS, values, strict=True)}
            write_json(path, result)
        checkpoints.clear()  # also what a call left that was killed between the two
        rows.append({"seed": seed, **result})
    return pd.DataFrame(rows)


def first_metrics(path: str | Path, dataset: str, variant: Variant) -> dict[str, float]:
    """`COLUMNS` of what the stage `train` wrote of the first seed's network; SeedsError if they are not there."""
    again = f"`dvc repro train@{dataset}-{variant}`"
    try:
        written = json.loads(Path(path).read_text(encoding="utf-8"))[dataset][variant]
        first = {name: float(written[name]) for name in COLUMNS}
        if not all(map(math.isfinite, first.values())):
            raise ValueError(first)
        return first
    except FileNotFoundError:
        raise SeedsError(f"{path} is missing: make it with {again}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise SeedsError(f"{path} is damaged ({error!r}): get it back with git, or train again: {again}") from None


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """Of the test accuracy {mean, std (with more than one run), runs}; rows: of `train_seeds`."""
    accuracy = rows.test_accuracy
    values = {"mean": accuracy.mean()} | ({"std": accuracy.std()} if len(rows) > 1 else {})
    return {name: round(float(value), 4) for name, value in values.items()} | {"runs": len(rows)}
