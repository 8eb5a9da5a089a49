"""A whole training: the network that the parameters describe, its data and device, and epoch after epoch."""

import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from xnornet.cpu import allowed_cores, has_bfloat16
from xnornet.data import DataError, Images, Prepared
from xnornet.nn.checkpoint import Checkpoints
from xnornet.nn.loop import Loop, Run
from xnornet.nn.models import LeNet5, ResNet18, build_model
from xnornet.params import RESIDUAL, DatasetParams, ParamsError, Runtime, Variant


def fit(
    data: Prepared,
    params: DatasetParams,
    variant: Variant,
    runtime: Runtime,
    *,
    checkpoints: Checkpoints | None = None,
    title: str = "",
) -> Run:
    """Train one network on the training images, watched on the validation images; the test images are not looked at.

    With `checkpoints`, goes on where an earlier, killed call stopped, to the same end. Errors, before any work:
    ParamsError (device, threads, batch size, crop, cutout), DataError (split, image size). TrainingError when the loss
    is no longer finite.
    """
    device, recipe = _set_up_torch(runtime), params.variant(variant)
    if recipe.precision == "bfloat16" and device.type == "cpu" and not has_bfloat16():
        print(
            f"{title}: this CPU has no bfloat16, which makes it slow: set {variant}.precision to float32",
            file=sys.stderr,
        )
    train, validation = data.split(params.split.validation, params.split.seed)
    check_recipe(params, variant, train)
    torch.manual_seed(runtime.seed)
    run = Run(make_network(data, params, variant, train).to(device))
    loop = Loop(run, params.training, recipe, len(train))
    if checkpoints and (state := checkpoints.load(device)):
        loop.restore(state)
        print(f"{title}: going on after epoch {len(run.curve)}", file=sys.stderr)

    images = torch.from_numpy(train.images).to(device)
    labels = torch.from_numpy(train.labels).to(device).long()
    done, epochs = len(run.curve), recipe.epochs
    with tqdm(
        total=epochs * loop.steps, initial=done * loop.steps, desc=title, unit="batch", disable=None, mininterval=0.5
    ) as bar:
        for epoch in range(done, epochs):
            start = time.perf_counter()
            row = {"epoch": epoch + 1, "learning_rate": loop.optimizer.param_groups[0]["lr"]}
            row |= loop.epoch(epoch, images, labels, runtime.seed, bar)
            run.seconds.append(time.perf_counter() - start)
            row |= loop.validate(validation, epoch)
            run.curve.append(row)
            run.total_seconds += time.perf_counter() - start
            bar.set_postfix_str(_postfix(row))
            if bar.disable:
                print(f"{title} epoch {epoch + 1}/{epochs}: {_postfix(row)}, {run.seconds[-1]:.1f} s", flush=True)
            if checkpoints:
                checkpoints.save(epoch + 1, loop.state(), last=epoch + 1 == epochs)
    return run


def check_recipe(params: DatasetParams, variant: Variant, train: Images) -> None:
    """ParamsError where one cannot train so on these images: too few for a batch, or smaller than what is cut out."""
    recipe, side = params.variant(variant), min(train.images.shape[1:3])
    if recipe.batch_size > len(train):
        raise ParamsError(f"{variant}.batch_size is {recipe.batch_size}, but there are {len(train)} training images")
    for name, pixels in (
        ("training.augment.crop", params.training.augment.crop),
        (f"{variant}.cutout", recipe.cutout),
    ):
        if pixels >= side:
            raise ParamsError(f"{name} is {pixels}, but the images have {side} pixels a side: nothing could be left")


def architecture(data: Prepared, params: DatasetParams, variant: Variant) -> dict[str, Any]:
    """The arguments of `build_model` for the network that `params` describe."""
    options: dict[str, Any] = params.model.model_dump() | {"variant": variant}
    if variant == "xnor":
        options |= {key: getattr(params.xnor, key) for key in ("gradient", "input_scaling", "output_norm")}
        options |= {key: True for key in RESIDUAL if getattr(params.xnor, key)}  # arguments that LeNet-5 does not have
    return options | {"in_channels": data.train.images.shape[3], "num_classes": len(data.classes)}


def make_network(data: Prepared, params: DatasetParams, variant: Variant, train: Images) -> LeNet5 | ResNet18:
    """The untrained network that `params` describe, with the training images' mean and deviation built in."""
    model = build_model(**architecture(data, params, variant))
    height, width = train.images.shape[1:3]
    smallest, largest = model.smallest_image, model.image_size
    if height != width or not smallest <= height <= largest:
        wanted = f"{smallest}x{smallest} to {largest}x{largest}" if smallest < largest else f"{largest}x{largest}"
        raise DataError(f"{params.model.name} takes {wanted} images, not {height}x{width}")
    mean, deviation = channel_statistics(train.images)
    model.normalize.mean.copy_(torch.from_numpy(mean / 255))
    model.normalize.std.copy_(torch.from_numpy(deviation / 255))
    return model


def channel_statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel of images (N, H, W, C), by their histograms: (C,) each."""
    levels = np.arange(256)
    counts = np.stack([np.bincount(channel.reshape(-1), minlength=256) for channel in np.moveaxis(images, 3, 0)])
    mean = counts @ levels / counts.sum(axis=1)
    squares = (counts * (levels - mean[:, None]) ** 2).sum(axis=1)
    return mean, np.sqrt(squares / counts.sum(axis=1))


def _set_up_torch(runtime: Runtime) -> torch.device:
    """The device to train on; torch's threads, and what cuDNN may do, are set for the whole process."""
    device = resolve_device(runtime.device)
    set_threads(runtime.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32 on a GPU too; bfloat16 is what is fast there
    torch.backends.cudnn.benchmark = True  # all batches have one shape: cuDNN may look for its fastest way once
    return device


def resolve_device(name: str) -> torch.device:
    """The torch device of `auto`, `cpu`, `cuda` or `mps`; ParamsError if this machine does not have it."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, here in available.items() if here)
    if not available[name]:
        raise ParamsError(f"runtime.device: {name} asked for, but torch finds none here: choose auto or cpu")
    return torch.device(name)


def set_threads(threads: int) -> None:
    """Let torch use so many CPU threads; 0 means every core that this process may use, more are a ParamsError."""
    if threads > allowed_cores():
        raise ParamsError(
            f"runtime.threads must be 0 to {allowed_cores()} (the cores this process may use), not {threads}"
        )
    torch.set_num_threads(threads or allowed_cores())


def _postfix(row: dict[str, float]) -> str:
    loss, accuracy, validation = row["train_loss"], row["train_accuracy"], row["validation_accuracy"]
    return f"loss {loss:.4f}, accuracy {accuracy:.1f} %, validation {validation:.2f} %"
