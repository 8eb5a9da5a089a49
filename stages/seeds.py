"""The full trainings with other seeds, each tested once: how far an accuracy depends on the seed."""

import json
import shutil
from pathlib import Path

from xnornet.data import Prepared
from xnornet.files import write_csv, write_json
from xnornet.params import load
from xnornet.seeds import summary, train_seeds
from xnornet.stage import arguments, md5, stage


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    params = load()
    path, finished = Path(f"data/{dataset}.safetensors"), Path(f".ckpt/seeds/{dataset}")
    metrics = {name: Path(f"metrics/train/{dataset}-{name}.json").read_text("utf-8") for name in params.variants}
    rows = train_seeds(
        Prepared.load(path),
        params.dataset(dataset),
        params.variants,
        params.runtime,
        first={name: json.loads(text)[dataset][name] for name, text in metrics.items()},
        finished=finished,
        identity=md5(path),
        title=dataset,
    )
    write_csv(f"plots/seeds/{dataset}.csv", rows)
    write_json(f"metrics/seeds/{dataset}.json", {dataset: {"seeds": summary(rows)}})
    shutil.rmtree(finished, ignore_errors=True)


if __name__ == "__main__":
    with stage():
        main()
