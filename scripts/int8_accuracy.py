"""What int8 costs: test accuracy of a trained float network in ONNX Runtime, in float32 and as `bench` quantizes it.

Usage: python scripts/int8_accuracy.py DATASET [MODEL]. DATASET: a name in params.yaml whose data are prepared. MODEL: a
float network of it, models/DATASET-float.safetensors unless named. Quantization is static, calibrated on 64 training
images; the engines come with `pip install -e '.[peers]'`.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from xnornet.bench.machine import usable_cores
from xnornet.bench.network import Exports
from xnornet.bench.peers import onnxruntime_session
from xnornet.data import Images, Prepared
from xnornet.files import md5
from xnornet.nn.evaluate import accuracy
from xnornet.nn.modelfile import load_model
from xnornet.stage import stage

BATCH = 500


def correct(network: Path, test: Images) -> float:
    """Percent of the test images that an ONNX network of uint8 (N, C, H, W) images gets right."""
    session = onnxruntime_session(str(network), usable_cores())
    batches = torch.from_numpy(test.images).permute(0, 3, 1, 2).contiguous().split(BATCH)
    logits = [torch.from_numpy(session.run(None, {"images": batch.numpy()})[0]) for batch in batches]
    return accuracy(torch.cat(logits), torch.from_numpy(test.labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("model", nargs="?")
    arguments = parser.parse_args()
    prepared = f"data/{arguments.dataset}.safetensors"
    data = Prepared.load(prepared)
    path = arguments.model or f"models/{arguments.dataset}-float.safetensors"
    model, _ = load_model(path, data_md5=md5(prepared))
    with tempfile.TemporaryDirectory() as folder:
        exports = Exports(model, data.train.images, Path(folder))
        for name, export in (("float32", exports.float32), ("int8", exports.int8)):
            print(f"{path}, {name}: {correct(export(), data.test):.2f} % of {len(data.test)} test images")


if __name__ == "__main__":
    with stage():
        main()
