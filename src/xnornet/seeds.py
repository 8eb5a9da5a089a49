"""How far an accuracy depends on the seed: the full training once more with others, each tested once."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from xnornet.data import Prepared
from xnornet.files import write_json
from xnornet.nn.checkpoint import Checkpoints, key
from xnornet.nn.evaluate import loss_and_accuracy
from xnornet.nn.training import fit
from xnornet.params import DatasetParams, Runtime, Variant


def train_seeds(
    data: Prepared,
    params: DatasetParams,
    variants: list[Variant],
    runtime: Runtime,
    *,
    first: dict[str, dict[str, Any]],
    finished: Path,
    identity: Any,
    title: str,
) -> pd.DataFrame:
    """Train and test each variant with the seeds after `runtime.seed`, until there are `params.seeds` of it.

    first: the metrics of the networks that have `runtime.seed`, by variant. finished: a folder for results and
    checkpoints, so that a killed call goes on where it was; `identity` (JSON) is what the results depend on besides the
    parameters, the data's md5. Returns a row a training: variant, seed, test_accuracy, validation_accuracy (percent).
    """
    rows = []
    for variant in variants:
        results = [first[variant]]
        for number in range(1, params.seeds):
            of_run = runtime.model_copy(update={"seed": runtime.seed + number})
            others = {"float", "xnor", "study", "seeds"} - {variant}
            digest = key(variant, params.model_dump(exclude=others), of_run.model_dump(), identity)
            path, name = finished / f"{digest}.json", f"{title}-{variant}, seed {of_run.seed}"
            if not path.exists():
                checkpoints = Checkpoints(finished / f"{variant}-{of_run.seed}", digest)
                run = fit(data, params, variant, of_run, checkpoints=checkpoints, title=name)
                _, accuracy, _ = loss_and_accuracy(run.model.cpu(), data.test)
                validation = run.curve[-1]["validation_accuracy"]
                write_json(path, {"test_accuracy": accuracy, "validation_accuracy": validation})
                checkpoints.clear()
            results.append(json.loads(path.read_text(encoding="utf-8")))
        columns = ("test_accuracy", "validation_accuracy")
        rows += [
            {"variant": variant, "seed": runtime.seed + number, **{name: round(result[name], 4) for name in columns}}
            for number, result in enumerate(results)
        ]
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Of each variant's test accuracy {mean, std (with more than one run), runs}; rows: of `train_seeds`."""
    result = {}
    for variant, accuracy in rows.groupby("variant").test_accuracy:
        values = {"mean": accuracy.mean()} | ({"std": accuracy.std()} if len(accuracy) > 1 else {})
        result[str(variant)] = {name: round(float(value), 4) for name, value in values.items()} | {
            "runs": len(accuracy)
        }
    return result
