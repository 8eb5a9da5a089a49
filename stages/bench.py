"""Time whole networks, float twins and peers against the packed network: metrics/inference, plots/inference."""

import torch

from xnornet.bench.network import time_network
from xnornet.data import Prepared
from xnornet.engine import PackedNetwork
from xnornet.files import write_csv, write_json
from xnornet.nn.training import make_network
from xnornet.params import load
from xnornet.stage import arguments, stage


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    params = load()
    bench = params.bench
    data = Prepared.load(f"data/{dataset}.safetensors")
    packed = PackedNetwork.load(f"models/packed/{dataset}.safetensors")
    # Untrained: how long it takes does not depend on its weights, and so this stage not on the float training.
    torch.manual_seed(params.runtime.seed)
    twin = make_network(data, params.dataset(dataset), "float", data.train)
    metrics, rows = time_network(
        twin,
        packed,
        data.test.images,
        batches=bench.batches,
        threads=bench.threads,
        repeats=bench.repeats,
        budget_seconds=bench.seconds_per_point,
        peers=bench.peers,
    )
    write_csv(f"plots/inference/{dataset}.csv", rows.round(6))
    write_json(f"metrics/inference/{dataset}.json", {dataset: {"inference": metrics}})


if __name__ == "__main__":
    with stage():
        main()
