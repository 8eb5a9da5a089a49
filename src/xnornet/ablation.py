"""What each stage of a ResNet is worth: how the network does without it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xnornet.data import Prepared
from xnornet.nn.evaluate import accuracy, predict
from xnornet.nn.models import Block, ResNet18
from xnornet.params import Split

SEEN_ON = 1000
"""Images, at most, that stages are left out on: enough to see a dead one."""


def without_stages(model: nn.Module, data: Prepared, split: Split) -> dict[str, Any]:
    """Accuracy of a trained ResNet without what the 3x3 convolutions of each stage add to the residual stream.

    What they add is replaced by its mean over images and pixels, channel by channel, so that it says nothing of the
    image; the skips stay as they are. Returns {"stages": {images, accuracy (with all), and for `stage1` to `stage4`
    {accuracy_without, stream_variance (of the residual stream behind it, over images and pixels, mean of the
    channels)}}}, accuracies in percent of up to 1,000 of the validation images; nothing for other networks. The model
    is left as it was.
    """
    if not isinstance(model, ResNet18):
        return {}
    _, validation = data.split(split.validation, split.seed)
    # From all over the set, which may be in order.
    some = validation.take(np.arange(0, len(validation), -(-len(validation) // SEEN_ON)))
    labels = torch.from_numpy(some.labels).long()

    def accuracy_now() -> float:  # in one batch: means and variances are of all images
        return accuracy(predict(model, torch.from_numpy(some.images), len(some)), labels)

    blocks: list[Block] = list(model.blocks)  # type: ignore[arg-type]
    parts = [blocks[start : start + 2] for start in range(0, len(blocks), 2)]
    variances: list[float] = []
    # Within each channel: what is the same for all images and pixels, the next BatchNorm takes away.
    hooks = [
        part[-1].register_forward_hook(lambda _, __, stream: variances.append(stream.var(dim=(0, 2, 3)).mean().item()))
        for part in parts
    ]
    whole = accuracy_now()
    for hook in hooks:
        hook.remove()
    result: dict[str, Any] = {"images": len(some), "accuracy": round(whole, 4)}
    for number, (part, variance) in enumerate(zip(parts, variances, strict=True), 1):
        with _silenced(part):
            without = accuracy_now()
        shown = {"accuracy_without": round(without, 4), "stream_variance": float(f"{variance:.4g}")}
        result[f"stage{number}"] = shown
    return {"stages": result}


@contextmanager
def _silenced(blocks: Sequence[Block]) -> Iterator[None]:
    """Let these blocks add the same to the stream, whatever the image."""

    def mean_of(block: Block) -> Any:
        def added(y: Tensor) -> Tensor:
            z = Block.added(block, y)
            return z.mean(dim=(0, 2, 3), keepdim=True).expand_as(z)

        return added

    for block in blocks:
        block.added = mean_of(block)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            del block.added
