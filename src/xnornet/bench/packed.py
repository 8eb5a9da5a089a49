"""What packing a trained network gives and keeps: bytes on disk, and the same answers as in torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from xnornet.data import Prepared
from xnornet.engine import PackedNetwork
from xnornet.nn import binary_layers, count_parameters
from xnornet.nn.evaluate import predict_images
from xnornet.params import Split

TOLERANCE = 1e-3
"""Logits of torch and of the engine may differ by this: float layers are summed in another order."""

ELSEWHERE = 0.5
"""Share of images that may differ by more where torch sums the float layers in an order of its own.

A value that lies at a threshold then gives the other bit, and that bit other logits: of ResNet-18s with random weights
6 to 29 % of the images had some. Most images must agree all the same, which those of a wrong network do not. From AVX2
on, oneDNN adds in the engine's order in one memory format of the images or the other, so that there no image may differ
in both.
"""


WITH_K = 0.02
"""The same of a network with input scaling: K (eq. 11) is a mean of floats, which the engine adds in its own order. Of
ResNet-18s with random weights 0.4 % of the images had other bits."""


class DisagreementError(RuntimeError):
    """A packed network answers differently from the torch network that it was made of."""


def agreement(
    model: nn.Module, packed: PackedNetwork, images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> dict[str, Any]:
    """Run both networks on uint8 images (N, H, W, C) and compare all logits and answers.

    Returns images, max_logit_difference, same_answers and test_accuracy (of the packed network), the last two in
    percent. DisagreementError if a logit differs by more than 1e-3, or an answer although torch's two highest logits
    are further apart than that, in whichever of torch's memory formats is closer: on any image, on more than 2 % of
    them if the network has K, or on more than half without oneDNN and AVX2.
    """
    wanted, got = predict_images(model, images), packed(images)
    wrong = _wrong(wanted, got)
    if wrong.any():
        # A copy has the strides of its axes even where there is one channel.
        channels_first = images[wrong].transpose(0, 3, 1, 2).copy()
        again = predict_images(model, channels_first.transpose(0, 2, 3, 1))
        better = ~_wrong(again, got[wrong])
        wanted[np.flatnonzero(wrong)[better]] = again[better]
        wrong = _wrong(wanted, got)
    difference = np.abs(wanted - got).max(axis=1)
    same = wanted.argmax(axis=1) == got.argmax(axis=1)
    if wrong.mean() > _allowed(model):
        raise DisagreementError(
            f"the packed network disagrees with torch on {wrong.sum()} of {len(images)} images, first on image "
            f"{wrong.argmax()}: logits differ by {difference[wrong.argmax()]:.3g}, {TOLERANCE:g} is allowed"
        )
    return {
        "images": len(images),
        "max_logit_difference": float(f"{difference.max():.3g}"),
        "same_answers": _percent(same),
        "test_accuracy": _percent(got.argmax(axis=1) == labels),
    }


def training_accuracy(packed: PackedNetwork, data: Prepared, split: Split) -> dict[str, float]:
    """{"train_accuracy": percent of the training images, as they are, that the packed network gets right}."""
    train, _ = data.split(split.validation, split.seed)
    return {"train_accuracy": _percent(packed(train.images).argmax(axis=1) == train.labels)}


def _percent(holds: NDArray[np.bool_]) -> float:
    return round(100 * float(holds.mean()), 4)


def _wrong(wanted: NDArray[np.float32], got: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,): which images' logits (N, classes) are not the same."""
    highest = np.sort(wanted, axis=1)[:, -2:]  # one, where there is one class
    lead = highest[:, -1] - highest[:, 0]
    same = wanted.argmax(axis=1) == got.argmax(axis=1)
    return ~(np.abs(wanted - got).max(axis=1) <= TOLERANCE) | (~same & (lead > TOLERANCE))


def _allowed(model: nn.Module) -> float:
    """The share of images that may differ."""
    if not _torch_adds_in_order():
        return ELSEWHERE
    return WITH_K if any(layer.input_scaling for layer in binary_layers(model)) else 0


def _torch_adds_in_order() -> bool:
    onednn = torch.backends.mkldnn
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vectors and onednn.is_available() and bool(onednn.enabled)


def memory(
    model: nn.Module, twin: nn.Module, packed: PackedNetwork, *, twin_file: Path, packed_file: Path
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Compare the file of a packed XNOR network with that of its float twin.

    Returns (metrics, rows). Metrics: float_bytes and packed_bytes on disk, ratio, and binary_share, the percentage of
    the XNOR network's parameters that are one bit each. Rows: layer, float_bytes, packed_bytes; a BatchNorm that became
    thresholds, or scale and bias, has its bytes with the layer that applies them.
    """
    total, binary = count_parameters(model)
    float_bytes, packed_bytes = twin_file.stat().st_size, packed_file.stat().st_size
    metrics = {
        "float_bytes": float_bytes,
        "packed_bytes": packed_bytes,
        "ratio": round(float_bytes / packed_bytes, 3),
        "binary_share": round(100 * binary / total, 3),
    }
    return metrics, pd.DataFrame(_rows(_float_bytes(twin), packed.layer_bytes()))


def _float_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes by layer, all BatchNorms in one entry; named as the engine names its nodes."""
    sizes: dict[str, int] = {}
    for name, tensor in model.state_dict().items():
        layer = name.rpartition(".")[0]
        is_batch_norm = isinstance(model.get_submodule(layer), nn.BatchNorm2d)
        layer = "BatchNorm" if is_batch_norm else re.sub(r"^blocks\.", "block", layer)
        sizes[layer] = sizes.get(layer, 0) + tensor.nbytes
    return sizes


def _rows(float_bytes: Mapping[str, int], packed_bytes: Mapping[str, int]) -> list[dict[str, Any]]:
    names = [name for name in packed_bytes if packed_bytes[name] or name in float_bytes]
    names += [name for name in float_bytes if name not in names]
    return [
        {"layer": name, "float_bytes": float_bytes.get(name, 0), "packed_bytes": packed_bytes.get(name, 0)}
        for name in names
    ]
