"""What figures show, beyond their being drawn: the right picture above the right words."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from xnornet.report import Results
from xnornet.report.figures import answers as answers_figure


def test_answers_stand_under_their_images(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sheet has every second of 200 test images, each here in a grey of its own."""
    tiles = np.arange(100, dtype=np.uint8).reshape(10, 10).repeat(28, 0).repeat(28, 1)
    Image.fromarray(tiles).save(results.root / "plots/samples/mnist.png")
    classes = [f"class {index}" for index in range(200)]
    for variant, mistakes in (("float", [114]), ("xnor", [6, 114, 7])):
        predicted = ["none" if index in mistakes else name for index, name in enumerate(classes)]
        answers = pd.DataFrame({"actual": classes, "predicted": predicted})
        answers.to_csv(results.root / f"plots/predictions/mnist-{variant}.csv", index=False)
    greys, titles, imshow, set_title = {}, {}, Axes.imshow, Axes.set_title

    def shown(axes: Axes, picture: Any, **options: Any) -> Any:
        assert picture.shape == (28, 28) and len(np.unique(picture)) == 1
        greys[axes] = int(picture[0, 0])
        return imshow(axes, picture, **options)

    def named(axes: Axes, title: str, **options: Any) -> Any:
        titles[axes] = title
        return set_title(axes, title, **options)

    monkeypatch.setattr(Axes, "imshow", shown)
    monkeypatch.setattr(Axes, "set_title", named)
    answers_figure(results, tmp_path, "mnist")
    assert list(greys.values())[:3] == [57, 3, 0], "mistakes of both first, then of one"
    assert len(greys) > 3 and {axes: f"class {2 * grey}" for axes, grey in greys.items()} == titles
