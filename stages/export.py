"""Pack a trained XNOR network, hold it against torch on the whole test set: models/packed/<dataset>.safetensors."""

import tempfile
from pathlib import Path

from xnornet.ablation import without_stages
from xnornet.bench.packed import agreement, memory
from xnornet.data import Prepared
from xnornet.engine import PackedNetwork
from xnornet.export import pack
from xnornet.files import write_csv, write_json
from xnornet.nn import load_model, save_model
from xnornet.nn.training import architecture, make_network
from xnornet.params import load
from xnornet.stage import arguments, md5, stage


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    data_file, packed_file = Path(f"data/{dataset}.safetensors"), Path(f"models/packed/{dataset}.safetensors")
    model, about = load_model(f"models/{dataset}-xnor.safetensors", data_md5=md5(data_file))
    settings, data = load().dataset(dataset), Prepared.load(data_file)
    packed = pack(model, about, image_size=data.test.images.shape[1])
    twin = make_network(data, settings, "float", data.train)  # untrained: its size is the same
    with tempfile.TemporaryDirectory(prefix="xnornet-") as folder:
        twin_file, file = Path(folder) / "float.safetensors", Path(folder) / "packed.safetensors"
        save_model(twin_file, twin, architecture(data, settings, "float"), about)
        packed.save(file)
        answers = agreement(model, PackedNetwork.load(file), data.test.images, data.test.labels)
        metrics, rows = memory(model, twin, packed, twin_file=twin_file, packed_file=file)
    packed.save(packed_file)
    answers |= without_stages(model, data, settings.data)
    write_json(f"metrics/packed/{dataset}.json", {dataset: {"packed": answers}})
    write_csv(f"plots/memory/{dataset}.csv", rows)
    write_json(f"metrics/memory/{dataset}.json", {dataset: {"memory": metrics}})


if __name__ == "__main__":
    with stage():
        main()
