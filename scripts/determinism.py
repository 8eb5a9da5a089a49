"""What a training's outcome depends on: the same network trained again, with other threads, another CPU, on a GPU.

Usage: python scripts/determinism.py [--dataset digits]. Prints a table: whether the model file has the same bytes as
that of the first run, how far the weights are apart, and the test accuracy. Another CPU is stood for by torch's and
oneDNN's own switches to older instruction sets. Then the packed network: its logits for other targets of the engine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load
from tabulate import tabulate

from workspace import copy_repository, edit_params, environment
from xnornet.export import pack
from xnornet.nn import load_model

CPUS = {"AVX2": "avx2", "no vector extensions": "default"}
ISA = {"avx2": "AVX2", "default": "SSE41"}
ENGINE_TARGETS = {"Haswell (AVX2)": ("haswell", "+avx2,+avx,+fma,+popcnt"), "plain x86-64": ("x86-64", "+sse2")}


def train(folder: Path, dataset: str, threads: int, device: str, variables: dict[str, str]) -> tuple[bytes, float]:
    """(model file, test accuracy) of the XNOR network."""
    edit_params(folder, {"runtime.threads": threads, "runtime.device": device})
    command = [sys.executable, "stages/train.py", dataset, "xnor"]
    subprocess.run(command, cwd=folder, env=environment(folder) | variables, check=True, stdout=subprocess.DEVNULL)
    metrics = json.loads((folder / f"metrics/train/{dataset}-xnor.json").read_text(encoding="utf-8"))
    model = (folder / f"models/{dataset}-xnor.safetensors").read_bytes()
    return model, metrics[dataset]["xnor"]["test_accuracy"]


def apart(a: bytes, b: bytes) -> float:
    """The largest difference of two values, BatchNorm's statistics included."""
    one, other = load(a), load(b)
    return max(float(np.abs(one[name].astype(np.float64) - other[name]).max()) for name in one)


def logits(folder: Path, dataset: str, variables: dict[str, str]) -> bytes:
    """The packed network's logits on all test images, as bytes."""
    code = (
        "import sys; from xnornet.data import Prepared; from xnornet.engine import PackedNetwork;"
        f"images = Prepared.load('data/{dataset}.safetensors').test.images;"
        f"sys.stdout.buffer.write(PackedNetwork.load('models/packed/{dataset}.safetensors')(images).tobytes())"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment(folder) | variables, check=True, stdout=subprocess.PIPE
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", choices=("digits", "shapes"))
    dataset = parser.parse_args().dataset
    runs: dict[str, tuple[int, str, dict[str, str]]] = {
        "one thread": (1, "cpu", {}),
        "one thread, again": (1, "cpu", {}),
        "two threads": (2, "cpu", {}),
        "two threads, again": (2, "cpu", {}),
    }
    for name, capability in CPUS.items():
        runs[f"one thread, {name}"] = (
            1,
            "cpu",
            {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": ISA[capability]},
        )
    if torch.cuda.is_available():
        runs |= {"GPU": (1, "cuda", {}), "GPU, again": (1, "cuda", {})}
    with tempfile.TemporaryDirectory(prefix="xnornet-determinism-") as temporary:
        folder = Path(temporary)
        copy_repository(folder)
        trained = {name: train(folder, dataset, *options) for name, options in runs.items()}
        first, _ = trained["one thread"]
        rows = [
            [name, "yes" if model == first else "no", f"{apart(model, first):.1e}", f"{accuracy:.2f} %"]
            for name, (model, accuracy) in trained.items()
        ]
        print(
            tabulate(
                rows,
                ["training", "same bytes", "largest difference", "test accuracy"],
                tablefmt="github",
            )
        )
        model, _ = load_model(folder / f"models/{dataset}-xnor.safetensors")
        (folder / "models/packed").mkdir(exist_ok=True)
        pack(model).save(folder / f"models/packed/{dataset}.safetensors")
        here = logits(folder, dataset, {})
        print()
        for name, (cpu, features) in ENGINE_TARGETS.items():
            target = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": f"{temporary}/{cpu}"}
            there = logits(folder, dataset, target)
            difference = np.abs(np.frombuffer(here, np.float32) - np.frombuffer(there, np.float32)).max()
            same = "the same bytes" if here == there else f"at most {difference:.1e} apart"
            print(f"packed network, compiled for {name}: logits {same}")


if __name__ == "__main__":
    main()
