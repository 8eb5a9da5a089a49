"""Augmentation: every image of a batch changes by itself."""

import pytest
import torch

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


def test_warping_shifts_by_pixels_and_keeps_the_scale_of_values() -> None:
    images = torch.full((16, 28, 28, 1), 255, dtype=torch.uint8)
    out = augment(images, Augment(flip=False, crop=2, rotate=10.0, scale=0.1), torch.Generator().manual_seed(0))
    assert out.shape == (16, 1, 28, 28) and out.dtype == torch.float32
    torch.testing.assert_close(out[:, :, 14, 14], torch.ones(16, 1))
    assert (out[:, 0, 0, 0] < 0.5).any()  # a corner turned out of the image
