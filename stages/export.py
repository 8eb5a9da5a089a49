"""Pack a trained XNOR network, hold it against torch on the whole test set: models/packed/<dataset>.safetensors."""

import tempfile
from pathlib import Path

from xnornet.ablation import without_stages
from xnornet.bench.packed import agreement, memory, training_accuracy
from xnornet.data import Prepared
from xnornet.engine import PackedNetwork
from xnornet.export import pack
from xnornet.files import atomic, md5, write_csv, write_json
from xnornet.nn import load_model, save_model
from xnornet.nn.training import architecture, make_network
from xnornet.params import load
from xnornet.stage import arguments, stage


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    data_file, packed_file = Path(f"data/{dataset}.safetensors"), Path(f"models/packed/{dataset}.safetensors")
    settings, data = load().dataset(dataset), Prepared.load(data_file)
    model, about = load_model(f"models/{dataset}-xnor.safetensors", data_md5=md5(data_file))
    packed = pack(model, about, image_size=data.test.images.shape[1])
    twin = make_network(data, settings, "float", data.train)  # untrained: its size is the same
    # The packed file takes its place once it is known to be right.
    with tempfile.TemporaryDirectory(prefix="xnornet-") as folder, atomic(packed_file) as part:
        twin_file = Path(folder) / "float.safetensors"
        save_model(twin_file, twin, architecture(data, settings, "float"), about)
        packed.save(part)
        answers = agreement(model, PackedNetwork.load(part), data.test.images, data.test.labels)
        metrics, rows = memory(model, twin, packed, twin_file=twin_file, packed_file=part)
        answers |= training_accuracy(packed, data, settings.split) | without_stages(model, data, settings.split)
    write_json(f"metrics/packed/{dataset}.json", {dataset: {"packed": answers}})
    write_json(f"metrics/memory/{dataset}.json", {dataset: {"memory": metrics}})
    write_csv(f"plots/memory/{dataset}.csv", rows)


if __name__ == "__main__":
    with stage():
        main()
