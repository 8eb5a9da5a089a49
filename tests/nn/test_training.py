"""Whole trainings: they learn, they repeat themselves byte for byte, they resume, they refuse what makes no sense."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as serialize

from tests.nn.trainings import RUNTIME, change, short
from xnornet.data import Images, Prepared
from xnornet.nn.checkpoint import Checkpoints
from xnornet.nn.evaluate import loss_and_accuracy
from xnornet.nn.layers import binary_layers
from xnornet.nn.loop import TrainingError, learning_rate_factor
from xnornet.nn.modelfile import ModelFileError, load_model, save_model
from xnornet.nn.training import architecture, channel_statistics, fit, make_network
from xnornet.params import RESIDUAL, Params, ParamsError, Restart, Variant


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
    settings = short(params.shapes, split={"validation": 60})
    settings = change(settings, **{variant: {"precision": precision}})
    run = fit(shapes, settings, variant, RUNTIME)
    assert run.curve[-1]["train_loss"] < run.curve[0]["train_loss"]


def test_the_learning_rate_follows_the_schedule(digits: Prepared, params: Params) -> None:
    settings = short(params.digits, epochs=3)
    run, recipe = fit(digits, settings, "float", RUNTIME), settings.float
    steps = (len(digits.train) - settings.split.validation) // recipe.batch_size
    wanted = [recipe.learning_rate * learning_rate_factor(epoch * steps, recipe, steps) for epoch in range(3)]
    assert [row["learning_rate"] for row in run.curve] == pytest.approx(wanted)


def test_it_is_watched_on_the_validation_images(digits: Prepared, params: Params) -> None:
    settings = short(params.digits)
    run = fit(digits, settings, "xnor", RUNTIME)
    _, validation = digits.split(settings.split.validation, settings.split.seed)
    loss, right, _ = loss_and_accuracy(run.model, validation)
    assert run.curve[-1]["validation_accuracy"] == pytest.approx(right)
    assert run.curve[-1]["validation_loss"] == pytest.approx(loss, rel=1e-5)


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


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("name", RESIDUAL)
def test_what_is_said_of_the_stream_is_what_the_xnor_network_has(
    name: str, on: bool, shapes: Prepared, params: Params
) -> None:
    settings = change(params.shapes, xnor=dict.fromkeys(RESIDUAL, False) | {name: on})
    xnor, twin = (make_network(shapes, settings, variant, shapes.train) for variant in ("xnor", "float"))
    block: Any = xnor.blocks[2]  # type: ignore[union-attr, index]
    twins: Any = twin.blocks[2]  # type: ignore[union-attr, index]
    assert {other: getattr(block, other) for other in RESIDUAL} == dict.fromkeys(RESIDUAL, False) | {name: on}
    assert not any(getattr(twins, other) for other in RESIDUAL)


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


def test_a_network_normalises_as_its_training_images_ask_for(shapes: Prepared, params: Params) -> None:
    train, _ = shapes.split(60, 0)
    normalize = make_network(shapes, params.shapes, "xnor", train).normalize
    pixels = torch.from_numpy(train.images).double() / 255
    torch.testing.assert_close(normalize.mean.double(), pixels.mean(dim=(0, 1, 2)), atol=1e-6, rtol=0)
    torch.testing.assert_close(normalize.std.double(), pixels.std(dim=(0, 1, 2), correction=0), atol=1e-6, rtol=0)


def test_a_training_that_ends_in_no_number_is_an_error(digits: Prepared, params: Params, tmp_path: Path) -> None:
    """Its only step has a loss, and leads to weights that are none: nothing of it is to be kept."""
    batch = len(digits.split(200, 0)[0])
    once = {"epochs": 1, "warmup_epochs": 0.0, "batch_size": batch, "learning_rate": 1e30}
    checkpoints = Checkpoints(tmp_path, "key")
    with pytest.raises(TrainingError, match=r"the validation loss became nan after epoch 1: lower the learning rate"):
        fit(digits, short(params.digits, float=once), "float", RUNTIME, checkpoints=checkpoints)
    assert not list(tmp_path.iterdir())


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
    settings = short(params.shapes, split={"validation": 60})
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
    recipe = {"epochs": 4, "warmup_epochs": 0.5, "restarts": restarts, "cutmix": 0.5}
    settings = short(params.digits, **{variant: recipe})
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


def test_a_restart_trains_on_from_the_weights_alone(digits: Prepared, params: Params, tmp_path: Path) -> None:
    first = short(params.digits, epochs=2)
    once = fit(digits, first, "xnor", RUNTIME)
    both = {"epochs": 4, "warmup_epochs": 0.5, "restarts": [Restart(after=2, learning_rate=1e-3)]}
    whole = fit(digits, short(params.digits, xnor=both), "xnor", RUNTIME, checkpoints=Checkpoints(tmp_path, "whole"))
    assert whole.curve[:2] == once.curve  # the first cycle is a training of its own
    state = Checkpoints(tmp_path, "whole").load(torch.device("cpu"))
    assert state is not None
    steps_per_epoch = (len(digits.train) - params.digits.split.validation) // params.digits.xnor.batch_size
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {2 * steps_per_epoch}
    assert whole.curve[-1]["train_loss"] < once.curve[-1]["train_loss"]


@pytest.mark.parametrize("content", ["3", '"a"', "null", "{}", "[" * 10_000])
def test_a_file_with_another_description_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "digits-xnor.safetensors"
    path.write_bytes(serialize({"x": torch.zeros(1)}, {"xnornet": content}))
    with pytest.raises(ModelFileError, match=r"digits-xnor\.safetensors is no model file of ours"):
        load_model(path)


def test_more_threads_than_cores_are_refused(digits: Prepared, params: Params) -> None:
    many = RUNTIME.model_copy(update={"threads": 99_999_999_999})
    with pytest.raises(ParamsError, match=r"runtime\.threads must be 0 to \d+ \(the cores .*\), not 99999999999"):
        fit(digits, params.digits, "float", many)


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


def test_channel_statistics_are_those_of_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 9, 7, 3), dtype=np.uint8)
    images[..., 1] = 255
    mean, deviation = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(deviation, images.std(axis=(0, 1, 2)), rtol=1e-12)
