"""Train one network on one data set and test it once: models/<dataset>-<variant>.safetensors, metrics, plots."""

import subprocess
import sys
from pathlib import Path

from xnornet.data import Prepared
from xnornet.files import md5
from xnornet.nn.checkpoint import Checkpoints, key
from xnornet.nn.record import write_outputs
from xnornet.nn.training import fit
from xnornet.params import Variant, known, load
from xnornet.stage import arguments, stage


def main() -> None:
    dataset, chosen = arguments(__doc__, "dataset", "variant")
    variant: Variant = known("variant", chosen, Variant)
    params = load()
    settings = params.dataset(dataset)
    path = Path(f"data/{dataset}.safetensors")
    if not path.exists():  # without DVC, which makes it first
        prepare = [sys.executable, str(Path(__file__).with_name("prepare.py")), dataset]
        if status := subprocess.run(prepare, check=False).returncode:
            sys.exit(status)
    data, data_md5 = Prepared.load(path), md5(path)
    name = f"{dataset}-{variant}"
    run_key = key(settings.of_training(variant), params.runtime.model_dump(), data_md5)
    checkpoints = Checkpoints(Path(".ckpt") / name, run_key)
    run = fit(data, settings, variant, params.runtime, checkpoints=checkpoints, title=name)
    write_outputs(run, data, data_md5, dataset, settings, variant, params.runtime)
    checkpoints.clear()


if __name__ == "__main__":
    with stage():
        main()
