"""The full training with other seeds, each tested once: how far an accuracy depends on the seed."""

from pathlib import Path

from xnornet.data import Prepared
from xnornet.files import md5, write_csv, write_json
from xnornet.params import Variant, known, load
from xnornet.seeds import first_metrics, summary, train_seeds
from xnornet.stage import arguments, stage


def main() -> None:
    dataset, chosen = arguments(__doc__, "dataset", "variant")
    variant: Variant = known("variant", chosen, Variant)
    params = load()
    name, path = f"{dataset}-{variant}", Path(f"data/{dataset}.safetensors")
    rows = train_seeds(
        Prepared.load(path),
        params.dataset(dataset),
        variant,
        params.runtime,
        first=first_metrics(f"metrics/train/{name}.json", dataset, variant),
        finished=Path(".ckpt/seeds") / dataset,  # kept, for more seeds
        data_md5=md5(path),
        title=name,
    )
    write_csv(f"plots/seeds/{name}.csv", rows)
    write_json(f"metrics/seeds/{name}.json", {dataset: {variant: {"seeds": summary(rows)}}})


if __name__ == "__main__":
    with stage():
        main()
