"""Time whole networks, float twins and peers against the packed network: metrics/inference, plots/inference."""

from xnornet.bench.network import time_network
from xnornet.data import Prepared
from xnornet.engine import PackedNetwork
from xnornet.files import write_csv, write_json
from xnornet.nn import load_model
from xnornet.params import load
from xnornet.stage import arguments, stage


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    bench = load().bench
    float_model, _ = load_model(f"models/{dataset}-float.safetensors")
    packed = PackedNetwork.load(f"models/packed/{dataset}.safetensors")
    images = Prepared.load(f"data/{dataset}.safetensors").test.images
    metrics, rows = time_network(
        float_model,
        packed,
        images,
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
