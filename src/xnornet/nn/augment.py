"""Augmentation of whole batches as tensors: every image gets its own shift, mirror, turn and zoom.

torchvision's transforms draw once per call, so that all images of a batch would move alike. (Its CutMix, which the loop
calls, does cut alike.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from xnornet.params import Augment


def augment(images: Tensor, params: Augment, generator: torch.Generator) -> Tensor:
    """Change a batch at random: uint8 (N, H, W, C) -> (N, C, H, W), uint8 or float 0 to 1.

    `generator` is the CPU's, whatever device the images are on: the same seed then gives the same images everywhere.
    """
    if params.rotate or params.scale:
        return _warp(images, params, generator)
    if params.crop or params.flip:
        images = _crop_and_flip(images, params, generator)
    return images.permute(0, 3, 1, 2)


def cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a square of each image (N, C, H, W) to 0, `side` pixels wide (0: none), less where it crosses the border.

    Its centre is any pixel (DeVries and Taylor 2017).
    """
    if not side:
        return images
    n, _, height, width = images.shape
    first = torch.stack([torch.randint(size, (n,), generator=generator) for size in (height, width)]) - side // 2
    top, left = _to(images.device, first).view(2, n, 1)
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    rows, columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)  # (N, H), (N, W)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _crop_and_flip(images: Tensor, params: Augment, generator: torch.Generator) -> Tensor:
    """One gather: rows and columns of the zero-padded image; columns reversed to mirror."""
    n, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, params.crop, params.crop, params.crop, params.crop))
    offsets = torch.randint(0, 2 * params.crop + 1, (2, n, 1), generator=generator)
    mirror = (torch.rand(n, 1, generator=generator) < 0.5) & params.flip
    rows = torch.arange(height) + offsets[0]  # (N, H)
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(mirror, columns.flip(1), columns) + offsets[1]  # (N, W)
    rows, columns = _to(images.device, rows), _to(images.device, columns)
    batch = torch.arange(n, device=images.device)
    return padded[batch.view(n, 1, 1), rows.view(n, height, 1), columns.view(n, 1, width)]


def _warp(images: Tensor, params: Augment, generator: torch.Generator) -> Tensor:
    """Turn, zoom, shift and mirror by bilinear sampling; outside of the image is 0."""
    n, height, width, channels = images.shape
    uniform = torch.rand(5, n, generator=generator) * 2 - 1
    angle = uniform[0] * (params.rotate * torch.pi / 180)
    zoom = 1 + uniform[1] * params.scale
    flip = torch.where((uniform[2] < 0) & params.flip, -1.0, 1.0)
    # affine_grid's coordinates run from -1 to 1 over the image: a pixel is 2 / size of them.
    shift_x, shift_y = uniform[3] * params.crop * 2 / width, uniform[4] * params.crop * 2 / height
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    rows = torch.stack([cos * flip, -sin, shift_x, sin * flip, cos, shift_y], dim=1).view(n, 2, 3)
    grid = F.affine_grid(_to(images.device, rows), [n, channels, height, width], align_corners=False)
    pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255
    return F.grid_sample(pixels, grid, align_corners=False)


def _to(device: torch.device, drawn: Tensor) -> Tensor:
    """What was drawn, on the images' device; by pinned memory, as any other copy to a GPU waits for all its work."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)
