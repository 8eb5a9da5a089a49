"""Leaving out a stage: what it adds says nothing of the image any more, and all else stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from xnornet import ablation as under_test
from xnornet.ablation import _silenced, without_stages
from xnornet.data import Images, Prepared
from xnornet.data.prepare import prepare
from xnornet.nn import ResNet18, build_model
from xnornet.nn.evaluate import accuracy, predict
from xnornet.params import Data, Split

SPLIT = Split(seed=0, validation=100)


@pytest.fixture(scope="module")
def shapes() -> Prepared:
    return prepare("shapes", Data(seed=0, train=200, test=10))


@pytest.fixture
def model() -> ResNet18:
    torch.manual_seed(0)
    model = build_model("resnet18", "xnor", in_channels=3, num_classes=10, width=4, shortcut="conv", output_norm=True)
    assert isinstance(model, ResNet18)
    return model.eval()


def test_only_residual_networks_have_stages_to_leave_out(shapes: Prepared) -> None:
    assert without_stages(build_model("lenet5", "xnor", in_channels=1, num_classes=10), shapes, SPLIT) == {}


def test_a_stage_whose_convolutions_add_a_constant_is_worth_nothing(shapes: Prepared, model: ResNet18) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for block in model.blocks[4:6]:
        for conv in (block.conv1, block.conv2):
            nn.init.zeros_(conv.norm.weight)
            nn.init.ones_(conv.norm.bias)
    seen = without_stages(model, shapes, SPLIT)["stages"]
    assert seen["images"] == 100
    assert seen["stage3"]["accuracy_without"] == seen["accuracy"]
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"blocks.{b}.conv{c}.norm.{p}" for b in (4, 5) for c in (1, 2) for p in ("weight", "bias")}
    assert not any("added" in vars(block) or block._forward_hooks for block in model.blocks)


def test_each_stage_is_left_out_in_turn(shapes: Prepared, model: ResNet18) -> None:
    _, validation = shapes.split(SPLIT.validation, SPLIT.seed)
    images, labels = torch.from_numpy(validation.images), torch.from_numpy(validation.labels).long()
    seen = without_stages(model, shapes, SPLIT)["stages"]
    for number in range(1, 5):
        with _silenced(list(model.blocks[2 * number - 2 : 2 * number])):
            assert seen[f"stage{number}"]["accuracy_without"] == accuracy(predict(model, images), labels)
    assert any(seen[f"stage{number}"]["accuracy_without"] != seen["accuracy"] for number in range(1, 5))


def test_what_the_convolutions_add_is_replaced_by_its_mean(shapes: Prepared, model: ResNet18) -> None:
    """Against a network whose other paths are cut: without a stage, every image then gets the same answer."""
    for block in model.blocks[6:]:
        block.shortcut = nn.Conv2d(block.conv1.in_channels, block.conv2.out_channels, 1, block.conv1.stride, bias=False)
        nn.init.zeros_(block.shortcut.weight)
    model.blocks[7].shortcut = nn.Identity()
    images = torch.from_numpy(shapes.test.images)

    def spread() -> float:
        logits = predict(model, images)
        return (logits - logits[0]).abs().max().item()

    assert spread() > 0.1
    with _silenced(list(model.blocks[6:])):
        assert spread() < 1e-5
    assert spread() > 0.1


def test_the_variance_is_that_of_the_stream(shapes: Prepared, model: ResNet18) -> None:
    _, validation = shapes.split(SPLIT.validation, SPLIT.seed)
    with torch.inference_mode():
        stream = model.stem(model.normalize(torch.from_numpy(validation.images).permute(0, 3, 1, 2)))
        wanted = [stream := block(stream) for block in model.blocks][1::2]
    seen = without_stages(model, shapes, SPLIT)["stages"]
    for number, behind in enumerate(wanted, 1):
        variance = behind.var(dim=(0, 2, 3)).mean().item()
        assert seen[f"stage{number}"]["stream_variance"] == pytest.approx(variance, rel=1e-3)


def test_a_remainder_of_images_has_no_batch_of_its_own(shapes: Prepared, model: ResNet18) -> None:
    """One of a single image would have no mean but its own, and a variance that counts as much as the others'."""
    data = replace(shapes, train=shapes.train.take(np.arange(600) % len(shapes.train)))
    _, validation = data.split(501, SPLIT.seed)
    with torch.inference_mode():
        stream = model.stem(model.normalize(torch.from_numpy(validation.images).permute(0, 3, 1, 2)))
        behind = model.blocks[1](model.blocks[0](stream))
    seen = without_stages(model, data, Split(seed=SPLIT.seed, validation=501))["stages"]
    assert seen["stage1"]["stream_variance"] == pytest.approx(behind.var(dim=(0, 2, 3)).mean().item(), rel=1e-3)


def test_images_are_taken_from_all_over_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be in order: the first ones, of a single class, would all be right or all be wrong."""
    model = build_model("resnet18", "xnor", in_channels=3, num_classes=4, width=4).eval()
    monkeypatch.setattr("xnornet.ablation.SEEN_ON", 10)
    images = Images(np.zeros((40, 32, 32, 3), np.uint8), np.repeat(np.arange(4, dtype=np.uint8), 10))
    data = Prepared(images, images, tuple("abcd"), "x", "original")
    asked: list[torch.Tensor] = []

    def noted(_: torch.Tensor, labels: torch.Tensor) -> float:
        asked.append(labels)
        return 50.0

    monkeypatch.setattr(under_test, "accuracy", noted)
    seen = without_stages(model, data, Split(seed=0, validation=30))["stages"]
    assert seen["images"] == 10 and set(asked[0].tolist()) == {0, 1, 2, 3}
    more = without_stages(model, data, Split(seed=0, validation=19))["stages"]
    assert more["images"] == 10  # every other one: no more than so many
