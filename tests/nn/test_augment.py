"""Augmentation: every image of a batch changes by itself."""

import math

import pytest
import torch
from torch import Tensor

from xnornet.nn.augment import augment, cut_out
from xnornet.params import Augment

NO_CHANGE = Augment(flip=False, crop=0, rotate=0.0, scale=0.0)


def test_augmentation_moves_each_image_by_itself() -> None:
    images = torch.zeros(500, 9, 9, 1, dtype=torch.uint8)
    images[:, 4, 4] = 255
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment(images, NO_CHANGE, generator), images.permute(0, 3, 1, 2))
    moved = augment(images, NO_CHANGE.model_copy(update={"crop": 2}), generator)
    places = moved.flatten(1).argmax(1)
    assert (moved.flatten(1).sum(1) == 255).all()
    assert {int(p) for p in places} == {9 * y + x for y in range(2, 7) for x in range(2, 7)}


def test_mirroring_reverses_columns_of_about_half() -> None:
    images = torch.randint(0, 256, (200, 6, 5, 3), dtype=torch.uint8)
    out = augment(images, NO_CHANGE.model_copy(update={"flip": True}), torch.Generator().manual_seed(0)).permute(
        0, 2, 3, 1
    )
    mirrored = [torch.equal(a, b.flip(1)) for a, b in zip(out, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(out, images, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True)) and 60 < sum(mirrored) < 140


def test_a_square_is_cut_out_of_each_image_wherever_its_centre_falls() -> None:
    images = torch.full((2000, 3, 9, 8), 200, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    assert cut_out(images, 0, generator) is images
    gone = cut_out(images, 3, generator) == 0
    assert (gone == gone[:, :1]).all()  # the same square in every channel
    rows, columns = gone[:, 0].any(2), gone[:, 0].any(1)
    assert torch.equal(gone[:, 0], rows[:, :, None] & columns[:, None, :])
    assert set(rows.sum(1).tolist()) == {2, 3} and set(columns.sum(1).tolist()) == {2, 3}  # 2 where the border cuts it
    share = gone[:, 0].float().mean(0)  # the centre is any pixel: one inside is covered by 9 of the 72 places
    assert share[4, 4].item() == pytest.approx(9 / 72, abs=0.03) and share[0, 0].item() == pytest.approx(
        4 / 72, abs=0.03
    )
    assert (images == 200).all()


# So little is nothing to be seen, but a reason to sample bilinearly.
HARDLY_TURNED = Augment(flip=False, crop=0, rotate=1e-6, scale=0.0)
SIDE, COUNT = 41, 400


def spot(x: float, y: float) -> Tensor:
    """So many equal images with one soft spot, so far from the centre in pixels: uint8 (N, H, W, 1)."""
    offset = torch.arange(SIDE) - (SIDE - 1) / 2
    image = 255 * torch.exp(-((offset[:, None] - y) ** 2 + (offset - x) ** 2) / 8)
    return image.round().to(torch.uint8).expand(COUNT, SIDE, SIDE)[..., None]


def centroids(images: Tensor) -> tuple[Tensor, Tensor]:
    """Where the light of each image (N, 1, H, W) is, from the centre: x and y, (N,) each."""
    offset = torch.arange(SIDE) - (SIDE - 1) / 2
    rows, columns = images.double().sum(3)[:, 0], images.double().sum(2)[:, 0]
    return columns @ offset.double() / columns.sum(1), rows @ offset.double() / rows.sum(1)


def warped(images: Tensor, **params: float) -> Tensor:
    return augment(images, HARDLY_TURNED.model_copy(update=params), torch.Generator().manual_seed(0))


def test_warping_shifts_evenly_by_up_to_so_many_pixels() -> None:
    for moved in centroids(warped(spot(0, 0), crop=3)):
        assert 2.9 < moved.abs().max() < 3.01 and moved.mean().abs() < 0.3
        assert moved.std().item() == pytest.approx(math.sqrt(3), rel=0.1)  # of numbers spread evenly over -3 to 3


def test_warping_turns_around_the_centre_by_up_to_so_many_degrees() -> None:
    x, y = centroids(warped(spot(10, 0), rotate=20.0))
    angle = torch.rad2deg(torch.atan2(y, x))
    assert (torch.hypot(x, y) - 10).abs().max() < 0.05
    assert 19 < angle.max() < 20.2 and -20.2 < angle.min() < -19
    assert angle.std().item() == pytest.approx(20 / math.sqrt(3), rel=0.1)


def test_warping_zooms_in_and_out() -> None:
    x, y = centroids(warped(spot(6, 8), scale=0.2))
    distance = torch.hypot(x, y)
    assert (torch.atan2(y, x) - math.atan2(8, 6)).abs().max() < 0.01
    assert 10 / 1.2 - 0.05 < distance.min() < 10 / 1.18 and 10 / 0.82 < distance.max() < 10 / 0.8 + 0.05


def test_warping_mirrors_about_half() -> None:
    x, y = centroids(warped(spot(10, 5), flip=True))
    assert (x.abs() - 10).abs().max() < 0.05 and (y - 5).abs().max() < 0.05
    assert 0.4 < (x < 0).double().mean() < 0.6
    assert (centroids(warped(spot(10, 5)))[0] > 0).all()


def test_warping_keeps_the_scale_of_values_and_fills_up_with_0() -> None:
    images = torch.full((16, 28, 28, 1), 255, dtype=torch.uint8)
    out = augment(images, Augment(flip=False, crop=2, rotate=10.0, scale=0.1), torch.Generator().manual_seed(0))
    assert out.shape == (16, 1, 28, 28) and out.dtype == torch.float32
    torch.testing.assert_close(out[:, :, 14, 14], torch.ones(16, 1))
    assert (out[:, 0, 0, 0] < 0.5).any()  # a corner turned out of the image
