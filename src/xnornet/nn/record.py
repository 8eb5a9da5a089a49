"""What a finished training leaves behind: the model file, metrics and plot data."""

import statistics
from pathlib import Path
from typing import Any

import cpuinfo
import numpy as np
import pandas as pd
import torch

from xnornet.data import Prepared
from xnornet.files import write_csv, write_json
from xnornet.nn.binarize import alpha
from xnornet.nn.evaluate import loss_and_accuracy
from xnornet.nn.layers import Binary, count_parameters
from xnornet.nn.loop import Run
from xnornet.nn.modelfile import load_model, save_model
from xnornet.nn.training import architecture
from xnornet.params import DatasetParams, Runtime, Variant

BINS = 81  # of a histogram; odd, so that 0 is in the middle of one


def write_outputs(
    run: Run,
    data: Prepared,
    data_md5: str,
    dataset: str,
    params: DatasetParams,
    variant: Variant,
    runtime: Runtime,
) -> None:
    """Save the network, test what was saved, and write, from the repository's root:

    models/<name>.safetensors, metrics/train/<name>.json (accuracies in percent), metrics/time/<name>.json (seconds and
    where they were spent), metrics/settings/<name>.json (the images and the parameters of this run),
    plots/curves/<name>.csv (a row an epoch), plots/predictions/<name>.csv (a row a test image),
    plots/weights/<name>.csv (histograms of the weights that are, or in the float twin would be, binarized); <name> is
    <dataset>-<variant>.
    """
    name = f"{dataset}-{variant}"
    about = {"dataset": dataset, "data_md5": data_md5, "data_source": data.source, "classes": data.classes}
    path = Path(f"models/{name}.safetensors")
    test_loss, test_accuracy, predicted = save_and_test(run, path, data, params, variant, about)
    parameters, binary = count_parameters(run.model)
    last = run.curve[-1]
    metrics = {
        "test_accuracy": round(test_accuracy, 4),
        "test_loss": round(test_loss, 6),
        "validation_accuracy": round(last["validation_accuracy"], 4),
        "train_accuracy": round(last["train_accuracy"], 4),
        "epochs": len(run.curve),
        "parameters": parameters,
        "binary_parameters": binary,
    }
    write_csv(f"plots/curves/{name}.csv", pd.DataFrame(run.curve).round(6))
    classes = pd.Series(data.classes)
    answers = {"actual": classes[data.test.labels].to_numpy(), "predicted": classes[predicted].to_numpy()}
    write_csv(f"plots/predictions/{name}.csv", pd.DataFrame(answers))
    write_csv(f"plots/weights/{name}.csv", weight_histograms(run.model))
    images = {"source": data.source, "encoding": data.encoding, "md5": data_md5}
    write_json(f"metrics/settings/{name}.json", {"images": images, **_settings(params, variant, runtime)})
    write_json(f"metrics/time/{name}.json", {dataset: {variant: _times(run, data, params, variant)}})
    write_json(f"metrics/train/{name}.json", {dataset: {variant: metrics}})


def save_and_test(
    run: Run, path: Path, data: Prepared, params: DatasetParams, variant: Variant, about: dict[str, Any]
) -> tuple[float, float, np.ndarray]:
    """Save the network at `path`, and test what was saved: (loss, accuracy in percent, answers (N,))."""
    save_model(path, run.model, architecture(data, params, variant), about)
    saved, _ = load_model(path)
    return loss_and_accuracy(saved, data.test)


def weight_histograms(model: torch.nn.Module) -> pd.DataFrame:
    """Columns layer, left, right (of a bin), count, alpha (mean over the layer's output channels)."""
    frames = []
    for name, layer in model.named_modules():
        if isinstance(layer, Binary):
            weight = layer.weight.detach().cpu()
            widest = float(weight.abs().max())
            count, edges = np.histogram(weight.numpy(), bins=BINS, range=(-widest, widest))
            rows = {
                "layer": name,
                "left": edges[:-1],
                "right": edges[1:],
                "count": count,
                "alpha": alpha(weight).mean().item(),
            }
            frames.append(pd.DataFrame(rows))
    return pd.concat(frames).round(6)


def _settings(params: DatasetParams, variant: Variant, runtime: Runtime) -> dict[str, Any]:
    return {
        "model": params.model.model_dump(),
        "data": params.data.model_dump(exclude_none=True),
        "split": params.split.model_dump(),
        "training": params.training.model_dump(),
        "optimization": params.variant(variant).model_dump(exclude_none=True),
        "runtime": runtime.model_dump(),
    }


def _times(run: Run, data: Prepared, params: DatasetParams, variant: Variant) -> dict[str, Any]:
    size = params.variant(variant).batch_size
    images = (len(data.train) - params.split.validation) // size * size
    seconds_per_epoch = statistics.median(run.seconds)  # not the mean: an epoch can be disturbed
    device = next(run.model.parameters()).device
    return {
        "seconds_per_epoch": round(seconds_per_epoch, 3),
        "images_per_second": round(images / seconds_per_epoch, 1),
        "total_seconds": round(run.total_seconds, 1),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else cpuinfo.get_cpu_info().get("brand_raw", device.type),
        "threads": torch.get_num_threads(),
    }
