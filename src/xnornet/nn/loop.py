"""Step after step of a training, its optimizer and learning rate: one loop for every data set, network and variant."""

import math
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2
from tqdm import tqdm

from xnornet.data import Images
from xnornet.nn.augment import augment, cut_out
from xnornet.nn.binarize import centre_, clamp_
from xnornet.nn.evaluate import accuracy, predict
from xnornet.nn.layers import binary_layers
from xnornet.nn.models import LeNet5, ResNet18
from xnornet.params import Optimization, Training, Xnor

_GENTLER = "lower the learning rate or lengthen the warm-up"


class TrainingError(RuntimeError):
    """Training cannot go on."""


@dataclass
class Run:
    """A training, finished or under way: the network, and what each epoch so far gave and took."""

    model: LeNet5 | ResNet18
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each epoch, validation left out
    total_seconds: float = 0.0  # with validation, over all sittings


class Loop:
    """What one training keeps from step to step."""

    def __init__(self, run: Run, training: Training, optimization: Optimization, images: int) -> None:
        self.run = run
        self.training = training
        self.optimization = optimization
        self.device = next(run.model.parameters()).device
        self.steps = images // optimization.batch_size
        self.memory_format = memory_format(run.model, training, self.device)
        run.model.to(memory_format=self.memory_format)
        self.optimizer = make_optimizer(run.model, optimization)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: learning_rate_factor(step, optimization, self.steps),
        )
        self.forward: nn.Module = run.model
        if optimization.compile is True or (optimization.compile == "auto" and self.device.type == "cuda"):
            torch.compiler.reset()  # after some networks of a study, it would leave the next ones as they are
            # On a GPU as CUDA graphs: there, launching a step's kernels one by one takes longer than what they do (the
            # XNOR network of CIFAR-10 by itself on an H200: 17.8 ms a step, as graphs 7.3).
            mode = "reduce-overhead" if self.device.type == "cuda" else None
            self.forward = cast(nn.Module, torch.compile(run.model, mode=mode))
        self.cutmix = v2.RandomApply([v2.CutMix(num_classes=run.model.num_classes)], p=optimization.cutmix)
        self.latent_weights = [layer.weight for layer in binary_layers(run.model)]

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.optimization.precision == "bfloat16")

    def epoch(self, epoch: int, images: Tensor, labels: Tensor, seed: int, bar: "tqdm[Any]") -> dict[str, float]:
        """One pass over the training images in random order; the images that fill no batch are left out.

        `seed` and `epoch` alone decide what is drawn, so that a resumed training has no generator to restore.
        Returns train_loss, train_accuracy (percent) and, of a binary network, signs_changed: the percentage of its
        binary weights that end the epoch with the other sign. In the first epoch, centring alone changes some.
        """
        self.run.model.train()
        generator = torch.default_generator.manual_seed(seed * 1_000_003 + epoch)  # torch's own: CutMix takes no other
        signs = [weight >= 0 for weight in self.latent_weights]
        if any(epoch == restart.after for restart in self.optimization.restarts or []):
            self.optimizer.state.clear()  # its moments are of the last cycle; a restart needs nothing but the weights
        size = self.optimization.batch_size
        order = torch.randperm(len(images), generator=generator).to(self.device)
        losses = torch.zeros(self.steps, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        checked = time.perf_counter()
        for step in range(self.steps):
            chosen = order[step * size : (step + 1) * size]
            logits, loss = self.step(self.augment(images[chosen], generator), labels[chosen])
            losses[step] = loss
            correct += (logits.argmax(1) == labels[chosen]).sum()
            # Reading a loss makes an accelerator wait: not in every step.
            if time.perf_counter() - checked > 1:
                self._check(losses[: step + 1], epoch)
                bar.set_postfix_str(
                    f"epoch {epoch + 1}/{self.optimization.epochs}, loss {loss.item():.4f}", refresh=False
                )
                checked = time.perf_counter()
            bar.update()
        self._check(losses, epoch)
        row = {
            "train_loss": losses.mean().item(),
            "train_accuracy": 100 * correct.item() / (self.steps * size),
        }
        if signs:
            changed = sum(int(((w >= 0) != s).sum()) for w, s in zip(self.latent_weights, signs, strict=True))
            row["signs_changed"] = 100 * changed / sum(s.numel() for s in signs)
        return row

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch at random, as `augment` and `cut_out` do: uint8 (N, H, W, C) -> (N, C, H, W)."""
        return cut_out(augment(images, self.training.augment, generator), self.optimization.cutout, generator)

    def step(self, batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from one batch (N, C, H, W), augmented already, with labels (N,).

        Of `cutmix` of the batches, it mixes the images and, in the same proportion, their labels (Yun et al. 2019).
        Returns the logits and their cross entropy with the labels as they are, neither smoothed nor mixed; detached.
        """
        self.optimizer.zero_grad()  # before the forward pass, whose CUDA graph takes the gradients' memory again
        targets = labels
        if self.optimization.cutmix:  # even at 0, it would draw from torch's generator
            batch, targets = self.cutmix(batch, labels)
        batch = batch.contiguous(memory_format=self.memory_format)
        with self.autocast():
            logits = self.forward(batch)
            loss = F.cross_entropy(logits, targets, label_smoothing=self.optimization.label_smoothing)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        if isinstance(self.optimization, Xnor):
            for weight in self.latent_weights:
                if self.optimization.centre:
                    centre_(weight)
                if self.optimization.clamp:
                    clamp_(weight)
        logits = logits.detach().to(torch.float32, copy=True)  # the next step's CUDA graph takes their memory
        return logits, F.cross_entropy(logits, labels)

    @staticmethod
    def _check(losses: Tensor, epoch: int) -> None:
        finite = losses.isfinite()
        if not finite.all():
            step = int((~finite).nonzero()[0])
            raise TrainingError(
                f"the loss became {losses[step].item()} in epoch {epoch + 1}, step {step + 1}: {_GENTLER}"
            )

    def validate(self, validation: Images, epoch: int) -> dict[str, float]:
        """Loss and accuracy in the number format of training: bfloat16 rounds sums of signs, so some answers differ.

        TrainingError for a loss that is no number, which the epoch's last step may lead to unseen.
        """
        labels = torch.from_numpy(validation.labels).to(self.device).long()
        with self.autocast():
            logits = predict(self.run.model, torch.from_numpy(validation.images).to(self.device))
        loss = F.cross_entropy(logits, labels).item()
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss became {loss} after epoch {epoch + 1}: {_GENTLER}")
        return {"validation_loss": loss, "validation_accuracy": accuracy(logits, labels)}

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on; tensors and plain values only."""
        return {
            "model": self.run.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"last_epoch": self.scheduler.last_epoch, "_last_lr": self.scheduler.get_last_lr()},
            "curve": self.run.curve,
            "seconds": self.run.seconds,
            "total_seconds": self.run.total_seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.run.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.__dict__.update(state["scheduler"])
        self.run.curve, self.run.seconds = state["curve"], state["seconds"]
        self.run.total_seconds = state["total_seconds"]


def memory_format(model: nn.Module, training: Training, device: torch.device) -> torch.memory_format:
    """The format to train in: channels last, if `training` says so and torch can do it."""
    # On CPUs with AVX2, the gradient of a strided convolution's input is written past its end there, where the channels
    # are no multiple of 8 (oneDNN's brgconv_strided, torch 2.14).
    strided = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    unsafe = device.type == "cpu" and any(conv.in_channels % 8 for conv in strided)
    return torch.channels_last if training.channels_last and not unsafe else torch.contiguous_format


def make_optimizer(model: nn.Module, params: Optimization) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, Adam or AdamW; weight decay on weights only, not on BatchNorm and biases."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": params.weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = decayed[0].device.type in ("cpu", "cuda")  # one pass over the weights
    if params.optimizer == "sgd":
        nesterov = params.momentum > 0
        return torch.optim.SGD(groups, params.learning_rate, params.momentum, nesterov=nesterov, fused=fused)
    make = torch.optim.Adam if params.optimizer == "adam" else torch.optim.AdamW
    return make(groups, params.learning_rate, betas=(params.momentum, 0.999), fused=fused)


def learning_rate_factor(step: int, params: Optimization, steps_per_epoch: int) -> float:
    """The learning rate of a step, as a factor on `params.learning_rate`: that of `warmed_up` in each cycle.

    Cycles end with restarts (Loshchilov and Hutter 2017, SGDR), each with a peak of its own.
    """
    first, end, peak = next(cycle for cycle in reversed(params.cycles()) if step >= cycle[0] * steps_per_epoch)
    factor = warmed_up(
        step - first * steps_per_epoch,
        steps=(end - first) * steps_per_epoch,
        warmup=round(params.warmup_epochs * steps_per_epoch),
        schedule=params.schedule,
    )
    return peak / params.learning_rate * factor


def warmed_up(step: int, *, steps: int, warmup: int, schedule: str) -> float:
    """Factor on the learning rate in `step` of `steps`: linear warm-up to 1, then the schedule down towards 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))  # `pace` may time more steps than there are
    return {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[schedule]
