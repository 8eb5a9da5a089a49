"""Get a data set, verify it and write it in prepared form: data/<dataset>.safetensors."""

from xnornet.data.prepare import prepare
from xnornet.files import write_json
from xnornet.params import load
from xnornet.stage import arguments, stage


def main() -> None:
    (dataset,) = arguments(__doc__, "dataset")
    params = load().dataset(dataset)
    data = prepare(dataset, params.data)
    data.save(f"data/{dataset}.safetensors")
    data.save_samples(f"plots/samples/{dataset}.png")
    facts = {
        "source": data.source,
        "encoding": data.encoding,
        "train_images": len(data.train),
        "test_images": len(data.test),
        "classes": len(data.classes),
        "shape": "x".join(str(side) for side in data.train.images.shape[1:]),
    }
    write_json(f"metrics/data/{dataset}.json", {dataset: {"data": facts}})


if __name__ == "__main__":
    with stage():
        main()
