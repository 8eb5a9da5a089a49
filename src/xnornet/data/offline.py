"""Two data sets that need no network: scanned digits that scikit-learn ships, and shapes drawn from a seed."""

from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from xnornet.data.prepared import DataError, Images, Prepared

SHAPES = ("arrow", "bar", "circle", "crescent", "cross", "frame", "ring", "square", "star", "triangle")
SIZE = 32
OVERSAMPLING = 4  # drawn at 128x128 and averaged down: smooth edges


def digits(*, test: int, seed: int) -> Prepared:
    """scikit-learn's 1,797 digits (8x8, 17 grey levels), enlarged to MNIST's 28x28x1; `test` of them set aside.

    DataError if that leaves either part without one of each class.
    """
    bunch = load_digits()
    most = len(bunch.target) - len(bunch.target_names)
    if not len(bunch.target_names) <= test <= most:
        raise DataError(f"digits.data.test must be {len(bunch.target_names)} to {most} of {most + 10}, not {test}")
    small = (bunch.images * (255 / 16)).round().astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(x).resize((28, 28), Image.Resampling.BILINEAR)) for x in small])
    labels = bunch.target.astype(np.uint8)
    train, held = train_test_split(np.arange(len(labels)), test_size=test, random_state=seed, stratify=labels)
    everything = Images(images[..., None], labels)
    return Prepared(
        everything.take(train), everything.take(held), tuple("0123456789"), "scikit-learn digits", "original"
    )


def shapes(*, train: int, test: int, seed: int) -> Prepared:
    """Ten shapes in random colours, places, sizes and angles on a noisy ground, 32x32x3."""
    parts = []
    for count, stream in ((train, 0), (test, 1)):
        rng = np.random.default_rng([seed, stream])
        labels = (np.arange(count) % len(SHAPES)).astype(np.uint8)
        parts.append(Images(np.stack([_draw(SHAPES[label], rng) for label in labels]), labels))
    return Prepared(parts[0], parts[1], SHAPES, "drawn shapes", "original")


def _draw(shape: str, rng: np.random.Generator) -> np.ndarray:
    """One image uint8 (32, 32, 3)."""
    ground = rng.integers(0, 256, 3)
    colour = ground
    while np.abs(colour - ground).sum() < 250:  # of 765: enough contrast to be seen
        colour = rng.integers(0, 256, 3)
    side = SIZE * OVERSAMPLING
    radius = rng.uniform(0.3, 0.45) * side
    centre = rng.uniform(radius, side - radius, 2)
    turn = rng.uniform(-pi / 9, pi / 9)

    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)

    def polygon(points: list[tuple[float, float]], fill: int = 255) -> None:
        """Points in units of the radius, x to the right and y down, turned and moved into place."""
        placed = [
            (
                float(centre[0] + radius * (x * cos(turn) - y * sin(turn))),
                float(centre[1] + radius * (x * sin(turn) + y * cos(turn))),
            )
            for x, y in points
        ]
        pen.polygon(placed, fill=fill)

    def ellipse(x: float, y: float, r: float, fill: int = 255) -> None:
        polygon([(x + r * cos(2 * pi * k / 40), y + r * sin(2 * pi * k / 40)) for k in range(40)], fill)

    def rectangle(half_width: float, half_height: float, fill: int = 255) -> None:
        w, h = half_width, half_height
        polygon([(-w, -h), (w, -h), (w, h), (-w, h)], fill)

    match shape:
        case "arrow":
            polygon([(-1, -0.25), (0.1, -0.25), (0.1, -0.7), (1, 0), (0.1, 0.7), (0.1, 0.25), (-1, 0.25)])
        case "bar":
            rectangle(1, 0.3)
        case "circle":
            ellipse(0, 0, 0.9)
        case "crescent":
            ellipse(0, 0, 0.95)
            ellipse(0.45, 0, 0.8, fill=0)
        case "cross":
            rectangle(0.95, 0.28)
            rectangle(0.28, 0.95)
        case "frame":
            rectangle(0.8, 0.8)
            rectangle(0.45, 0.45, fill=0)
        case "ring":
            ellipse(0, 0, 0.95)
            ellipse(0, 0, 0.55, fill=0)
        case "square":
            rectangle(0.8, 0.8)
        case "star":
            radii = (1.0, 0.42)
            polygon([(radii[k % 2] * sin(pi * k / 5), -radii[k % 2] * cos(pi * k / 5)) for k in range(10)])
        case "triangle":
            polygon([(0, -0.95), (0.9, 0.75), (-0.9, 0.75)])

    coverage = np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64)[..., None] / 255
    pixels = ground + coverage * (colour - ground) + rng.normal(0, 8, (SIZE, SIZE, 3))
    return pixels.round().clip(0, 255).astype(np.uint8)
