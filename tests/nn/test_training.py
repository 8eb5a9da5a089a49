"""The training loop: it learns, it repeats itself byte for byte, it resumes, it refuses what makes no sense."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from xnornet.data import Images, Prepared, prepare
from xnornet.nn.augment import augment, cut_out
from xnornet.nn.checkpoint import Checkpoints
from xnornet.nn.layers import binary_layers
from xnornet.nn.modelfile import ModelFileError, load_model, save_model
from xnornet.nn.models import build_model
from xnornet.nn.training import (
    Loop,
    Run,
    TrainingError,
    architecture,
    channel_statistics,
    fit,
    imitated,
    learning_rate_factor,
    make_network,
    make_optimizer,
    memory_format,
    warmed_up,
)
from xnornet.params import DatasetParams, Params, ParamsError, Restart, Runtime, Variant, load

ROOT = Path(__file__).parents[2]
RUNTIME = Runtime(device="cpu", threads=1, seed=0)


@pytest.fixture(scope="module")
def params() -> Params:
    return load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def digits(params: Params) -> Prepared:
    return prepare("digits", params.digits.data)


@pytest.fixture(scope="module")
def shapes(params: Params) -> Prepared:
    return prepare("shapes", params.shapes.data.model_copy(update={"train": 260, "test": 20}))


def change(params: DatasetParams, **changes: Any) -> DatasetParams:
    """A copy with values of nested blocks replaced, e.g. xnor={"epochs": 2}."""
    blocks = {name: getattr(params, name).model_copy(update=values) for name, values in changes.items()}
    return params.model_copy(update=blocks)


def short(params: DatasetParams, epochs: int = 2, **changes: Any) -> DatasetParams:
    few = {"epochs": epochs, "warmup_epochs": 0.5}
    return change(params, **({"xnor": few, "float": few} | changes))


SomeLoop = TypeVar("SomeLoop", bound=Loop)


def make_loop(data: Prepared, params: DatasetParams, images: int = 50, kind: type[SomeLoop] = Loop) -> SomeLoop:  # type: ignore[assignment]
    """The loop of a float training that has not begun."""
    return kind(Run(make_network(data, params, "float", data.train)), params.training, params.float, images)


@pytest.mark.parametrize("variant", ["float", "xnor"])
def test_it_learns(variant: Variant, digits: Prepared, params: Params) -> None:
    run = fit(digits, short(params.digits, epochs=4), variant, RUNTIME)
    assert run.curve[-1]["train_loss"] < 0.5 * run.curve[0]["train_loss"]
    assert run.curve[-1]["validation_accuracy"] > 80


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", ["float", "xnor"])
def test_residual_networks_train_in_either_precision(
    variant: Variant, precision: str, shapes: Prepared, params: Params
) -> None:
    settings = short(params.shapes, data={"validation": 60})
    settings = change(settings, **{variant: {"precision": precision}})
    run = fit(shapes, settings, variant, RUNTIME)
    assert np.isfinite([row["train_loss"] for row in run.curve]).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_computes_in_the_number_format_asked_for(precision: str, digits: Prepared, params: Params) -> None:
    loop = make_loop(digits, change(params.digits, float={"precision": precision}))
    seen = []
    loop.run.model.conv2.register_forward_hook(lambda *args: seen.append(args[2].dtype))  # type: ignore[union-attr, operator]
    images, labels = torch.from_numpy(digits.train.images[:50]), torch.from_numpy(digits.train.labels[:50]).long()
    logits, _ = loop.step(images.permute(0, 3, 1, 2), labels)
    assert seen == [getattr(torch, precision)] and logits.dtype == torch.float32


def test_batches_are_augmented_as_the_parameters_say(digits: Prepared, params: Params) -> None:
    settings = change(params.digits, float={"cutout": 6})
    images, (one, other) = torch.from_numpy(digits.train.images[:50]), [torch.Generator().manual_seed(3) for _ in "ab"]
    changed = make_loop(digits, settings).augment(images, one)
    assert torch.equal(changed, cut_out(augment(images, settings.training.augment, other), 6, other))
    assert not torch.equal(changed, images.permute(0, 3, 1, 2) / 255)


class Watched(Loop):
    """Notes which images it learns from: the first two pixels of each have its number."""

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        self.seen = [*getattr(self, "seen", []), *(images[:, 0, 0, 0] + 256 * images[:, 0, 1, 0].int()).tolist()]
        return super().augment(images, generator)


def test_each_epoch_takes_each_image_once_in_an_order_of_its_own(digits: Prepared, params: Params) -> None:
    images = torch.from_numpy(digits.train.images[:150]).clone()
    images[:, 0, 0, 0] = torch.arange(150)
    images[:, 0, 1, 0] = 0
    loop = make_loop(digits, params.digits, images=150, kind=Watched)
    orders = []
    for epoch in range(2):
        loop.seen = []
        labels = torch.from_numpy(digits.train.labels[:150]).long()
        with tqdm(disable=True) as bar:
            loop.epoch(epoch, images, labels, torch.Generator().manual_seed(epoch), bar)
        orders.append(loop.seen)
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(150))
    assert orders[0] != orders[1] and list(range(150)) not in orders


def test_the_test_images_are_not_looked_at(digits: Prepared, params: Params) -> None:
    noise = np.random.default_rng(0).integers(0, 256, digits.test.images.shape, np.uint8)
    blind = dataclasses.replace(digits, test=Images(noise, digits.test.labels[::-1].copy()))
    settings = short(params.digits, float={"epochs": 1, "warmup_epochs": 0.0})
    one, other = (fit(data, settings, "float", RUNTIME) for data in (digits, blind))
    assert one.curve == other.curve
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


@pytest.mark.parametrize("gradient", ["paper", "detached"])
def test_the_gradient_is_a_parameter_that_changes_the_result(gradient: str, digits: Prepared, params: Params) -> None:
    once = {"epochs": 1, "warmup_epochs": 0.0, "output_norm": False}  # with it, a constant alpha is the same training
    arms = [short(params.digits, xnor=once | {"gradient": g}) for g in ("corrected", gradient)]
    runs = [fit(digits, arm, "xnor", RUNTIME) for arm in arms]
    assert runs[0].curve != runs[1].curve


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("centre", [True, False])
def test_latent_weights_are_centred_and_clamped_if_asked(
    centre: bool, clamp: bool, digits: Prepared, params: Params
) -> None:
    xnor = {"epochs": 1, "warmup_epochs": 0.0, "learning_rate": 0.3, "centre": centre, "clamp": clamp}
    model = fit(digits, short(params.digits, xnor=xnor), "xnor", RUNTIME).model
    weight = model.conv2.weight.detach()  # type: ignore[union-attr, operator]
    assert (weight.abs().max() <= 1) == clamp
    if not clamp:
        assert (weight.mean(dim=1).abs().max() < 1e-5) == centre


def test_changed_signs_are_counted(digits: Prepared, params: Params) -> None:
    once = {"epochs": 1, "warmup_epochs": 0.0}
    still = fit(digits, short(params.digits, xnor=once | {"learning_rate": 1e-12, "centre": False}), "xnor", RUNTIME)
    assert still.curve[0]["signs_changed"] == 0
    torch.manual_seed(RUNTIME.seed)
    before = make_network(digits, params.digits, "xnor", digits.split(200, 0)[0])
    run = fit(digits, short(params.digits, xnor=once), "xnor", RUNTIME)
    pairs = [(a.weight >= 0, b.weight >= 0) for a, b in zip(*map(binary_layers, (before, run.model)), strict=True)]
    changed, total = sum(int((a != b).sum()) for a, b in pairs), sum(a.numel() for a, _ in pairs)
    assert run.curve[0]["signs_changed"] == pytest.approx(100 * changed / total) and changed > 0
    assert "signs_changed" not in fit(digits, short(params.digits, float=once), "float", RUNTIME).curve[0]


def test_same_seed_same_bytes(shapes: Prepared, params: Params, tmp_path: Path) -> None:
    settings = short(params.shapes, data={"validation": 60})
    files = []
    for name in ("a", "b"):
        run = fit(shapes, settings, "xnor", RUNTIME)
        save_model(tmp_path / name, run.model, architecture(shapes, settings, "xnor"), {"dataset": "shapes"})
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    other = fit(shapes, settings, "xnor", RUNTIME.model_copy(update={"seed": 1}))
    save_model(tmp_path / "c", other.model, architecture(shapes, settings, "xnor"), {"dataset": "shapes"})
    assert files[0] != (tmp_path / "c").read_bytes()


class Killed(BaseException):
    """Not an Exception: nothing may catch it on the way."""


class Mortal(Checkpoints):
    """Dies right after the checkpoint of one epoch."""

    def save(self, epoch: int, state: dict[str, Any], *, last: bool) -> None:
        self._cost = 0.0  # every epoch, however short
        super().save(epoch, state, last=last)
        if epoch == 2:
            raise Killed


@pytest.mark.parametrize("damage", [False, True])
@pytest.mark.parametrize("variant", ["float", "xnor"])
def test_a_killed_training_resumes_to_the_same_end(
    variant: Variant, damage: bool, digits: Prepared, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restarts = [Restart(after=2, learning_rate=1e-3)]  # on the one side of it or on the other, by `damage`
    settings = short(params.digits, **{variant: {"epochs": 4, "warmup_epochs": 0.5, "restarts": restarts}})
    whole = fit(digits, settings, variant, RUNTIME)
    with pytest.raises(Killed):
        fit(digits, settings, variant, RUNTIME, checkpoints=Mortal(tmp_path, "key"))
    if damage:
        newest = max(tmp_path.glob("*.pt"))
        data = bytearray(newest.read_bytes())
        data[len(data) // 2] ^= 1  # one bit, in the middle of a tensor
        newest.write_bytes(data)
    checkpoints = Checkpoints(tmp_path, "key")
    resumed = fit(digits, settings, variant, RUNTIME, checkpoints=checkpoints)
    said = capsys.readouterr().err
    assert ("damaged" in said) == damage
    assert f"going on after epoch {1 if damage else 2}" in said
    assert resumed.curve == whole.curve
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert len(list(tmp_path.glob("*.pt"))) <= 2
    checkpoints.clear()
    assert not list(tmp_path.glob("*.pt"))


def test_wrong_settings_end_it_before_any_work(digits: Prepared, params: Params) -> None:
    with pytest.raises(ParamsError, match=r"float.batch_size is 1300, but there are 1200 training images"):
        fit(digits, short(params.digits, float={"batch_size": 1300}), "float", RUNTIME)
    with pytest.raises(ParamsError, match=r"float.cutout is 28, but the images have 28 pixels a side"):
        fit(digits, short(params.digits, float={"cutout": 28}), "float", RUNTIME)
    moved = params.digits.training.model_copy(
        update={"augment": params.digits.training.augment.model_copy(update={"crop": 40})}
    )
    with pytest.raises(ParamsError, match=r"training.augment.crop is 40, but the images have 28 pixels a side"):
        fit(digits, params.digits.model_copy(update={"training": moved}), "float", RUNTIME)
    if not torch.cuda.is_available():
        with pytest.raises(ParamsError, match="cuda asked for, but torch finds none here: choose auto or cpu"):
            fit(digits, params.digits, "float", RUNTIME.model_copy(update={"device": "cuda"}))


def test_a_loss_that_is_not_finite_names_epoch_and_step(digits: Prepared, params: Params) -> None:
    wild = short(params.digits, float={"epochs": 1, "warmup_epochs": 0.0, "learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) in epoch 1, step \d+: lower the learning rate"):
        fit(digits, wild, "float", RUNTIME)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_optimizers_get_their_settings(momentum: float, digits: Prepared, params: Params) -> None:
    model = build_model(**architecture(digits, params.digits, "float"))
    settings = {"learning_rate": 0.03, "momentum": momentum, "weight_decay": 0.2}
    made = {
        name: make_optimizer(model, params.digits.float.model_copy(update=settings | {"optimizer": name}))
        for name in ("sgd", "adam", "adamw")
    }
    assert [type(optimizer) for optimizer in made.values()] == [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW]
    for name, optimizer in made.items():
        weights, others = optimizer.param_groups
        assert (weights["lr"], weights["weight_decay"], others["lr"], others["weight_decay"]) == (0.03, 0.2, 0.03, 0)
        if name == "sgd":
            assert (weights["momentum"], weights["nesterov"]) == (momentum, momentum > 0)
        else:
            assert weights["betas"] == (momentum, 0.999)


def test_no_weight_decay_on_batchnorm_and_biases(digits: Prepared, params: Params) -> None:
    model = fit(
        digits, short(params.digits, epochs=1, float={"epochs": 1, "warmup_epochs": 0.0}), "float", RUNTIME
    ).model
    groups = make_optimizer(model, params.digits.float).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert names == {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}


def test_cutout_reaches_the_network(digits: Prepared, params: Params) -> None:
    settings = change(params.digits, float={"cutout": 28})
    loop = Loop(Run(make_network(digits, settings, "float", digits.train)), settings.training, settings.float, 100)
    images = torch.full((50, 28, 28, 1), 255, dtype=torch.uint8)
    covered = [
        (loop.augment(images, torch.Generator().manual_seed(seed)) == 0).float().mean().item() for seed in (0, 1)
    ]
    assert all(0.3 < share < 0.9 for share in covered) and covered[0] != covered[1]


@pytest.mark.parametrize(("choice", "compiled"), [(False, False), ("auto", False), (True, True)])
def test_compiled_where_it_is_asked_for(
    choice: bool | str, compiled: bool, digits: Prepared, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` leaves a CPU alone: it may have no C++ compiler."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model: asked.append(model) or model)
    settings = change(params.digits, float={"compile": choice})
    Loop(Run(make_network(digits, settings, "float", digits.train)), settings.training, settings.float, 100)
    assert bool(asked) == compiled


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_are_what_is_learnt_and_plain_ones_what_is_reported(
    smoothing: float, digits: Prepared, params: Params
) -> None:
    settings = change(params.digits, float={"label_smoothing": smoothing})
    loop = Loop(Run(make_network(digits, settings, "float", digits.train)), settings.training, settings.float, 100)
    batch = torch.from_numpy(digits.train.images[:50]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(digits.train.labels[:50]).long()
    logits, loss = loop.step(batch, labels)
    target = (1 - smoothing) * F.one_hot(labels, 10) + smoothing / 10
    # The gradient of the last bias is that of the logits, summed over the batch: softmax minus target.
    torch.testing.assert_close(loop.run.model.fc2.bias.grad, (logits.softmax(1) - target).mean(0))
    torch.testing.assert_close(loss, F.nll_loss(logits.log_softmax(1), labels))


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_is_the_one_asked_for(channels_last: bool, shapes: Prepared, params: Params) -> None:
    settings = change(params.shapes, training={"channels_last": channels_last})
    loop = Loop(Run(make_network(shapes, settings, "float", shapes.train)), settings.training, settings.float, 100)
    seen = []
    for block in loop.run.model.blocks:
        block.register_forward_hook(lambda *tensors: seen.append(tensors[-1].stride(1) == 1))
    batch = augment(torch.from_numpy(shapes.train.images[:8]), settings.training.augment, torch.Generator())
    loop.step(batch, torch.from_numpy(shapes.train.labels[:8]).long())
    assert seen == 8 * [channels_last]


def test_learning_rate_warms_up_and_comes_down() -> None:
    for schedule, end in (("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)):
        factors = [warmed_up(s, steps=100, warmup=10, schedule=schedule) for s in range(100)]
        assert factors[:10] == sorted(factors[:10]) and factors[10] == 1.0
        assert factors[10:] == sorted(factors[10:], reverse=True)
        assert abs(factors[-1] - end) < 0.02


def test_a_restart_trains_on_from_the_weights_alone(digits: Prepared, params: Params, tmp_path: Path) -> None:
    first = short(params.digits, epochs=2)
    once = fit(digits, first, "xnor", RUNTIME)
    both = {"epochs": 4, "warmup_epochs": 0.5, "restarts": [Restart(after=2, learning_rate=1e-3)]}
    whole = fit(digits, short(params.digits, xnor=both), "xnor", RUNTIME, checkpoints=Checkpoints(tmp_path, "whole"))
    assert whole.curve[:2] == once.curve  # the first cycle is a training of its own
    state = Checkpoints(tmp_path, "whole").load(torch.device("cpu"))
    assert state is not None
    steps_per_epoch = (len(digits.train) - params.digits.data.validation) // params.digits.xnor.batch_size
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {2 * steps_per_epoch}
    assert whole.curve[-1]["train_loss"] < once.curve[-1]["train_loss"]


def test_each_cycle_warms_up_to_its_own_peak(params: Params) -> None:
    restarts = [Restart(after=4, learning_rate=0.2), Restart(after=6, learning_rate=0.05)]
    how = params.digits.float.model_copy(
        update={"epochs": 10, "warmup_epochs": 1.0, "learning_rate": 0.1, "restarts": restarts}
    )
    rates = [0.1 * learning_rate_factor(step, how, 10) for step in range(100)]
    plain = how.model_copy(update={"epochs": 4, "restarts": None})
    assert rates[:40] == [0.1 * learning_rate_factor(step, plain, 10) for step in range(40)]
    assert (rates[10], rates[50], rates[70]) == (0.1, 0.2, 0.05)
    assert max(rates[39:41]) < 0.02 and max(rates[59:61]) < 0.02 and rates[-1] < 0.001


def test_model_files_round_trip_and_damage_is_named(tmp_path: Path, digits: Prepared, params: Params) -> None:
    settings = short(params.digits, xnor={"epochs": 1, "warmup_epochs": 0.0})
    model = fit(digits, settings, "xnor", RUNTIME).model.eval()
    path = tmp_path / "digits-xnor.safetensors"
    save_model(path, model, architecture(digits, settings, "xnor"), {"dataset": "digits", "data_md5": "0"})
    loaded, about = load_model(path)
    assert about == {"dataset": "digits", "data_md5": "0"}
    load_model(path, data_md5="0")
    with pytest.raises(ModelFileError, match="trained on other data"):
        load_model(path, data_md5="1")
    images = torch.from_numpy(digits.test.images[:8]).permute(0, 3, 1, 2)
    assert torch.equal(loaded(images), model(images))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="train it again"):
        load_model(path)
    with pytest.raises(ModelFileError, match="not found"):
        load_model(tmp_path / "none")


@pytest.mark.parametrize(("width", "device", "wanted"), [(8, "cpu", True), (4, "cpu", False), (4, "cuda", True)])
def test_channels_last_only_where_it_is_safe(params: Params, width: int, device: str, wanted: bool) -> None:
    """On CPUs with AVX2, a strided convolution of 4 channels writes past the end of its input's gradient there."""
    model = build_model("resnet18", "float", in_channels=3, num_classes=10, width=width)
    chosen = memory_format(model, params.shapes.training, torch.device(device))
    assert chosen == (torch.channels_last if wanted else torch.contiguous_format)
    never = params.shapes.training.model_copy(update={"channels_last": False})
    assert memory_format(model, never, torch.device(device)) == torch.contiguous_format


@pytest.mark.parametrize(
    ("precision", "device", "capabilities", "slow"),
    [
        ("bfloat16", "cpu", {"avx2": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ("bfloat16", "cpu", {"avx2": True, "avx512_bf16": True, "amx_bf16": False}, False),
        ("bfloat16", "cpu", {"neon": True, "bf16": True}, False),
        ("bfloat16", "cuda", {"avx2": True}, False),
        ("float32", "cpu", {"avx2": True}, False),
    ],
)
def test_bfloat16_is_called_slow_where_the_cpu_lacks_it(
    precision: str, device: str, capabilities: dict[str, bool], slow: bool
) -> None:
    assert imitated(precision, torch.device(device), capabilities) == slow


def test_channel_statistics_are_those_of_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 9, 7, 3), dtype=np.uint8)
    images[..., 1] = 255
    mean, deviation = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(deviation, images.std(axis=(0, 1, 2)), rtol=1e-12)
