"""Time one training step, float twin and XNOR network side by side: metrics/pace/<dataset>.json."""

from xnornet.bench.pace import time_steps
from xnornet.data import Prepared
from xnornet.files import write_json
from xnornet.params import load
from xnornet.stage import arguments, stage


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    params = load()
    data = Prepared.load(f"data/{dataset}.safetensors")
    metrics = time_steps(
        data,
        params.dataset(dataset),
        params.runtime,
        repeats=params.bench.repeats,
        budget_seconds=params.bench.seconds_per_point,
    )
    write_json(f"metrics/pace/{dataset}.json", {dataset: {"pace": metrics}})


if __name__ == "__main__":
    with stage():
        main()
