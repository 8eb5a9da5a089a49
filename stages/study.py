"""Many short trainings: which gradient, and which other terms, train better: plots/study, metrics/study."""

from pathlib import Path

from xnornet.data import Prepared
from xnornet.files import md5, write_csv, write_json
from xnornet.params import load
from xnornet.stage import arguments, stage
from xnornet.study import study, summary


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    params = load()
    path, finished = Path(f"data/{dataset}.safetensors"), Path(f".ckpt/study/{dataset}")
    rows = study(
        Prepared.load(path),
        params.dataset(dataset),
        params.study,
        params.runtime,
        finished=finished,
        data_md5=md5(path),
        title=dataset,
    )
    write_csv(f"plots/study/{dataset}.csv", rows)
    write_json(f"metrics/study/{dataset}.json", {dataset: {"study": summary(rows)}})


if __name__ == "__main__":
    with stage():
        main()
