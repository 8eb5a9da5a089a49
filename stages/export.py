"""Pack a trained XNOR network, hold it against torch on the whole test set: models/packed/<dataset>.safetensors."""

from pathlib import Path

from xnornet.bench.packed import agreement, memory
from xnornet.data import Prepared
from xnornet.engine import PackedNetwork
from xnornet.export import pack
from xnornet.files import write_csv, write_json
from xnornet.nn import load_model
from xnornet.stage import arguments, stage


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    twin_file, packed_file = Path(f"models/{dataset}-float.safetensors"), Path(f"models/packed/{dataset}.safetensors")
    model, about = load_model(f"models/{dataset}-xnor.safetensors")
    twin, _ = load_model(twin_file)
    test = Prepared.load(f"data/{dataset}.safetensors").test
    packed_file.parent.mkdir(parents=True, exist_ok=True)
    pack(model, about).save(packed_file)
    packed = PackedNetwork.load(packed_file)
    write_json(
        f"metrics/packed/{dataset}.json", {dataset: {"packed": agreement(model, packed, test.images, test.labels)}}
    )
    metrics, rows = memory(model, twin, packed, twin_file=twin_file, packed_file=packed_file)
    write_csv(f"plots/memory/{dataset}.csv", rows)
    write_json(f"metrics/memory/{dataset}.json", {dataset: {"memory": metrics}})


if __name__ == "__main__":
    with stage():
        main()
