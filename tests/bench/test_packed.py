"""The stage `export` compares every logit, and says what disagrees."""

import numpy as np
import pytest
import torch

from xnornet.bench import packed as under_test
from xnornet.bench.packed import DisagreementError, agreement, training_accuracy
from xnornet.data import Images, Prepared
from xnornet.engine import PackedNetwork
from xnornet.export import pack
from xnornet.nn import build_model
from xnornet.params import Split

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
LABELS = np.arange(40, dtype=np.uint8) % 10


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model("lenet5", "xnor", in_channels=1, num_classes=10)
    model.normalize.std.fill_(0.3)
    for step in range(5):  # BatchNorm's statistics
        model(torch.from_numpy(IMAGES[8 * step : 8 * step + 8]).permute(0, 3, 1, 2))
    return model.eval()


def off_by(network: PackedNetwork, images: int, times: float = 1) -> PackedNetwork:
    """A network whose logits are wrong for the first so many images."""

    class Wrong:
        def __call__(self, x: np.ndarray) -> np.ndarray:
            logits = network(x)
            logits[:images] = times * logits[:images] + 0.5
            return logits

    return Wrong()  # type: ignore[return-value]


def test_a_packed_network_agrees_with_its_model(model: torch.nn.Module) -> None:
    seen = agreement(model, pack(model), IMAGES, LABELS)
    assert seen["images"] == 40 and seen["same_answers"] == 100
    assert 0 < seen["max_logit_difference"] < 1e-4


def test_training_accuracy_is_that_of_the_training_images_alone() -> None:
    labels = LABELS.copy()
    validation = np.random.default_rng(3).permutation(40)[:10]  # see `Prepared.split`
    labels[validation] = (labels[validation] + 1) % 10
    others = np.setdiff1d(np.arange(40), validation)
    labels[others[:3]] = (labels[others[:3]] + 1) % 10
    told = LABELS[:, None, None, None]  # each image is its class
    data = Prepared(Images(told, labels), Images(told, LABELS), tuple("0123456789"), "x", "original")

    def network(images: np.ndarray) -> np.ndarray:
        return np.eye(10, dtype=np.float32)[images[:, 0, 0, 0]]

    assert training_accuracy(network, data, Split(seed=3, validation=10)) == {"train_accuracy": 90.0}  # type: ignore[arg-type]


def test_one_image_is_enough_to_disagree(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_torch_adds_in_order", lambda: True)
    with pytest.raises(DisagreementError, match=r"on 1 of 40 images, first on image 0: logits differ by 0\.5"):
        agreement(model, off_by(pack(model), 1), IMAGES, LABELS)


def test_networks_of_one_class_agree_by_their_logits() -> None:
    logits = np.array([[0.5], [2.0], [-1.0]], np.float32)
    assert under_test._wrong(logits, logits + np.array([[0], [0.5], [1e-5]], np.float32)).tolist() == [
        False,
        True,
        False,
    ]


def test_torch_in_its_other_memory_format_counts_too(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of images laid out channels last is made wrong for two of them: the other format is asked."""
    asked = []

    def predict_images(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
        logits = honest(network, images)
        asked.append((len(images), images.strides[-1]))
        if len(asked) == 1:
            logits[[3, 5]] += 0.5
        return logits

    honest = under_test.predict_images
    monkeypatch.setattr(under_test, "predict_images", predict_images)
    monkeypatch.setattr(under_test, "_torch_adds_in_order", lambda: True)
    assert agreement(model, pack(model), IMAGES, LABELS)["max_logit_difference"] < 1e-4
    assert asked == [(40, 1), (2, 28 * 28)]


def test_a_few_may_differ_without_onednn(model: torch.nn.Module) -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        assert agreement(model, off_by(pack(model), 1), IMAGES, LABELS)["max_logit_difference"] >= 0.5
        with pytest.raises(DisagreementError, match="on 21 of 40 images"):
            agreement(model, off_by(pack(model), 21), IMAGES, LABELS)


def test_k_excuses_few_images_whatever_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_torch_adds_in_order", lambda: True)
    torch.manual_seed(0)
    model = build_model("lenet5", "xnor", in_channels=1, num_classes=10, input_scaling=True).eval()
    images = np.tile(IMAGES, (3, 1, 1, 1))  # 120, of which 2 % are 2
    labels = np.tile(LABELS, 3)
    network = pack(model)
    allowed = agreement(model, network, images, labels)["images"]
    assert allowed == 120 and agreement(model, off_by(network, 2), images, labels)["max_logit_difference"] >= 0.5
    assert agreement(model, off_by(network, 2, times=-100), images, labels)["same_answers"] < 100
    with pytest.raises(DisagreementError, match="on 3 of 120 images"):
        agreement(model, off_by(network, 3), images, labels)


@pytest.mark.parametrize("options", [{"normed_shortcut": True, "residual_relu": True}, {"input_scaling": True}])
def test_a_residual_network_agrees_on_every_image(options: dict[str, bool]) -> None:
    """Thousands of images: a sum in another order, in a 1x1 shortcut, crosses a threshold on few of them.

    With K, on which torch and the engine differ in the last bits, a few may.
    """
    torch.manual_seed(0)
    model = build_model(
        "resnet18", "xnor", in_channels=3, num_classes=10, width=16, shortcut="conv", output_norm=True, **options
    )
    model.normalize.std.fill_(0.3)
    images = np.random.default_rng(0).integers(0, 256, (3000, 32, 32, 3), dtype=np.uint8)
    for step in range(20):  # BatchNorm's statistics
        model(torch.from_numpy(images[50 * step : 50 * step + 50]).permute(0, 3, 1, 2))
    model.eval()
    seen = agreement(model, pack(model), images, np.zeros(len(images), np.uint8))
    if "input_scaling" not in options and under_test._torch_adds_in_order():
        assert seen["max_logit_difference"] < 1e-4
