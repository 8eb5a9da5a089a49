"""What a step and an epoch of a training do: number format, images, optimizer, learning rate, memory, compilation."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from tests.nn.trainings import change, make_loop
from xnornet.data import Prepared
from xnornet.nn.augment import augment, cut_out
from xnornet.nn.loop import Loop, learning_rate_factor, make_optimizer, memory_format, warmed_up
from xnornet.nn.models import build_model
from xnornet.nn.training import architecture
from xnornet.params import RESIDUAL, Params, Restart


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
            loop.epoch(epoch, images, labels, 0, bar)
        orders.append(loop.seen)
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(150))
    assert orders[0] != orders[1] and list(range(150)) not in orders


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
    model = make_loop(digits, params.digits).run.model
    groups = make_optimizer(model, params.digits.float).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert names == {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}


@pytest.mark.parametrize(("choice", "compiled"), [(False, False), ("auto", False), (True, True)])
def test_compiled_where_it_is_asked_for(
    choice: bool | str, compiled: bool, digits: Prepared, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` leaves a CPU alone: it may have no C++ compiler."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, mode: asked.append(mode) or model)
    settings = change(params.digits, float={"compile": choice})
    make_loop(digits, settings)
    assert asked == [None] * compiled  # CUDA graphs, "reduce-overhead", are for GPUs


STREAM = dict.fromkeys(RESIDUAL, True)


@pytest.mark.parametrize(
    ("network", "variant", "options"),
    [
        ("lenet5", "float", {}),
        ("lenet5", "xnor", {"output_norm": True}),
        ("resnet18", "float", {"width": 4, "shortcut": "conv"}),
        ("resnet18", "xnor", {"width": 4, "shortcut": "conv", "output_norm": True, **STREAM}),
        ("resnet18", "xnor", {"width": 4, "shortcut": "block", "input_scaling": True}),
    ],
    ids=["lenet5", "lenet5-xnor", "resnet18", "resnet18-xnor", "resnet18-xnor-K"],
)
def test_compiled_a_network_is_one_graph(network: str, variant: Any, options: dict[str, Any]) -> None:
    """What torch.compile cannot trace it runs between graphs, slowly, and says nothing."""
    model = build_model(network, variant, in_channels=3, num_classes=10, **options)
    compiled = torch.compile(model.to(memory_format=torch.channels_last).train(), fullgraph=True, backend="aot_eager")
    side = model.image_size
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        compiled(images).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_smoothed_labels_are_what_is_learnt_and_plain_ones_what_is_reported(
    smoothing: float, digits: Prepared, params: Params
) -> None:
    settings = change(params.digits, float={"label_smoothing": smoothing})
    loop = make_loop(digits, settings)
    batch = torch.from_numpy(digits.train.images[:50]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(digits.train.labels[:50]).long()
    logits, loss = loop.step(batch, labels)
    target = (1 - smoothing) * F.one_hot(labels, 10) + smoothing / 10
    # The gradient of the last bias is that of the logits, summed over the batch: softmax minus target.
    torch.testing.assert_close(loop.run.model.fc2.bias.grad, (logits.softmax(1) - target).mean(0))
    torch.testing.assert_close(loss, F.nll_loss(logits.log_softmax(1), labels))


def test_a_mixed_image_is_learnt_as_both_labels_by_their_shares(digits: Prepared, params: Params) -> None:
    smoothing = 0.1
    loop = make_loop(digits, change(params.digits, float={"cutmix": 1.0, "label_smoothing": smoothing}))
    images: list[Tensor] = []
    gradients: list[Tensor] = []

    def watch(model: object, inputs: object, logits: Tensor) -> None:
        logits.register_hook(gradients.append)

    loop.run.model.register_forward_pre_hook(lambda _, inputs: images.append(inputs[0]))
    loop.run.model.register_forward_hook(watch)
    batch, labels = torch.rand(50, 1, 28, 28), torch.arange(50) % 10
    logits, loss = loop.step(batch, labels)
    before = batch.roll(1, 0)  # the image before each in the batch; before the first, the last
    pasted = (images[0] != batch).any(1)[0]
    rows, columns = pasted.any(1), pasted.any(0)
    assert torch.equal(pasted, rows[:, None] & columns[None, :]) and 0 < pasted.sum() < 784
    assert torch.equal(images[0], torch.where(pasted, before, batch))
    share = 1 - pasted.float().mean()
    mixed = share * F.one_hot(labels, 10) + (1 - share) * F.one_hot(labels.roll(1), 10)
    torch.testing.assert_close(gradients[0] * 50, logits.softmax(1) - (1 - smoothing) * mixed - smoothing / 10)
    torch.testing.assert_close(loss, F.nll_loss(logits.log_softmax(1), labels))


def test_as_many_batches_are_mixed_as_asked_for(digits: Prepared, params: Params) -> None:
    batch, labels = torch.rand(4, 1, 28, 28), torch.arange(4)
    for probability in (0.0, 0.25):
        loop = make_loop(digits, change(params.digits, float={"cutmix": probability}))
        images: list[Tensor] = []
        loop.run.model.register_forward_pre_hook(lambda _, inputs, images=images: images.append(inputs[0]))
        state = torch.get_rng_state()
        for _ in range(60):
            loop.step(batch, labels)
        mixed = sum(not torch.equal(seen, batch) for seen in images)
        assert 6 < mixed < 25 if probability else mixed == 0
        assert torch.equal(torch.get_rng_state(), state) == (probability == 0)  # nothing is drawn for nothing


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_memory_format_is_the_one_asked_for(channels_last: bool, shapes: Prepared, params: Params) -> None:
    settings = change(params.shapes, training={"channels_last": channels_last})
    loop = make_loop(shapes, settings)
    seen = []
    for block in loop.run.model.blocks:
        block.register_forward_hook(lambda *tensors: seen.append(tensors[-1].stride(1) == 1))
    batch = augment(torch.from_numpy(shapes.train.images[:8]), settings.training.augment, torch.Generator())
    loop.step(batch, torch.from_numpy(shapes.train.labels[:8]).long())
    assert seen == 8 * [channels_last]


@pytest.mark.parametrize(("width", "device", "wanted"), [(8, "cpu", True), (4, "cpu", False), (4, "cuda", True)])
def test_channels_last_only_where_it_is_safe(params: Params, width: int, device: str, wanted: bool) -> None:
    """On CPUs with AVX2, a strided convolution of 4 channels writes past the end of its input's gradient there."""
    model = build_model("resnet18", "float", in_channels=3, num_classes=10, width=width)
    chosen = memory_format(model, params.shapes.training, torch.device(device))
    assert chosen == (torch.channels_last if wanted else torch.contiguous_format)
    never = params.shapes.training.model_copy(update={"channels_last": False})
    assert memory_format(model, never, torch.device(device)) == torch.contiguous_format


def test_learning_rate_warms_up_and_comes_down() -> None:
    for schedule, end in (("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)):
        factors = [warmed_up(s, steps=100, warmup=10, schedule=schedule) for s in range(100)]
        assert factors[:10] == sorted(factors[:10]) and factors[10] == 1.0
        assert factors[10:] == sorted(factors[10:], reverse=True)
        assert abs(factors[-1] - end) < 0.02


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
