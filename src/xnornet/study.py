"""Which gradient, and which other terms, train an XNOR network better: short trainings, the same seeds in every arm.

Compared on the validation images; the test images are not looked at.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torchvision.transforms.v2 import functional as transforms

from xnornet.data import Images, Prepared
from xnornet.files import write_json
from xnornet.nn.checkpoint import earlier_result, key
from xnornet.nn.training import fit
from xnornet.pairs import difference
from xnornet.params import DatasetParams, Runtime, Study, arms_of, compared_with, settings_of

SOURCE = Path(__file__).read_text(encoding="utf-8")


def study(
    data: Prepared, params: DatasetParams, plan: Study, runtime: Runtime, *, finished: Path, data_md5: str, title: str
) -> pd.DataFrame:
    """Train `plan.seeds` XNOR networks in each arm, each as short and narrow as `params.study` says.

    finished: a folder for the result of each training, so that a killed study goes on with the next one, and one with
    more arms with these; `data_md5` tells other data from these.
    Returns a row a training: arm, against (the arm it is compared with; the first with itself), seed,
    validation_accuracy (percent), train_loss, signs_changed (percent of the binary weights, in the last epoch), epochs,
    image_size, width (0: the network has none). ParamsError if two arms are the same.
    """
    arms = arms_of(params, plan)
    data = shrink(data, params.study.image_size)
    length = {"epochs": params.study.epochs, "image_size": params.study.image_size}
    against = compared_with(arms)
    columns = ("validation_accuracy", "train_loss", "signs_changed")
    rows = []
    for seed in range(plan.seeds):
        for name, arm in arms.items():
            settings = settings_of(params, plan, arm)
            of_run = runtime.model_copy(update={"seed": runtime.seed + seed})
            # Without what another training has: an arm added later leaves the finished ones as they are.
            own = settings.of_training("xnor"), params.study.image_size
            path = finished / f"{key(SOURCE, *own, of_run.model_dump(), data_md5)}.json"
            result = earlier_result(path, columns, f"{title} {name}, seed {seed}")
            if result is None:
                last = fit(data, settings, "xnor", of_run, title=f"{title} {name}, seed {seed}").curve[-1]
                result = {column: round(last[column], 6) for column in columns}
                write_json(path, result)
            who = {"arm": name, "against": against[name], "seed": of_run.seed}
            size = length | {"width": getattr(settings.model, "width", 0)}
            rows.append({**who, **result, **size})
    places = list(arms)
    return pd.DataFrame(sorted(rows, key=lambda row: places.index(row["arm"])))  # within an arm, they are by seed


def summary(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean and deviation of each arm's validation accuracy, and its difference to another arm's, seed by seed.

    rows: of `study`. For each arm {mean, std, runs, signs_changed (mean)} and, but for the first, {difference, low,
    high}: the mean difference in points to the arm `against`, and its 95 % confidence interval by Student's t over the
    pairs with the same seed.
    """
    accuracy = rows.pivot(index="seed", columns="arm", values="validation_accuracy")
    changed = rows.groupby("arm").signs_changed.mean()
    against = dict(zip(rows.arm, rows.against, strict=True))
    result = {
        arm: {
            "mean": accuracy[arm].mean(),
            "std": accuracy[arm].std(),
            "runs": len(accuracy),
            "signs_changed": changed[arm],
        }
        for arm in against
    }
    for arm, other in list(against.items())[1:]:
        of_pairs = difference(accuracy[arm], accuracy[other])
        result[arm] |= {"difference": of_pairs.mean, "low": of_pairs.low, "high": of_pairs.high}
    return {arm: {name: round(float(value), 4) for name, value in values.items()} for arm, values in result.items()}


def shrink(data: Prepared, size: int) -> Prepared:
    """The same images at size x size pixels."""

    def smaller(part: Images) -> Images:
        images = torch.from_numpy(part.images).permute(0, 3, 1, 2)
        images = transforms.resize(images, [size, size], antialias=True)
        return Images(images.permute(0, 2, 3, 1).contiguous().numpy(), part.labels)

    return replace(data, train=smaller(data.train), test=smaller(data.test))
