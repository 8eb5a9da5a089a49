"""What one training step takes: the float twin and the XNOR network on the same batch, interleaved.

The seconds of a whole training depend on what else the machine did in those hours; this comparison does not.
"""

from collections.abc import Callable
from typing import Any

import torch

from xnornet.bench.machine import usable_cores
from xnornet.bench.timing import Timing, compare, timing_lock
from xnornet.bench.timing import threads as use_threads
from xnornet.cpu import has_bfloat16
from xnornet.data import Prepared
from xnornet.nn.loop import Loop, Run
from xnornet.nn.training import check_recipe, make_network
from xnornet.params import DatasetParams, Runtime, Variant

VARIANTS: tuple[Variant, ...] = ("float", "xnor")


def time_steps(
    data: Prepared, params: DatasetParams, runtime: Runtime, *, repeats: int, budget_seconds: float
) -> dict[str, Any]:
    """Time whole steps (augment, forward, backward, optimizer) at the images' full size, on the CPU.

    Both as the float twin trains, in its batches and its number format, if the CPU has that, else in float32: what
    binarization costs, and not what bfloat16 gives.
    repeats, budget_seconds: see `compare`. Returns, for each variant, {seconds_per_epoch, iqr_seconds (of an epoch),
    images_per_second, noisy}, and threads, precision and images (of an epoch). ParamsError as in `fit`, but not for
    more threads than there are cores, in place of which all cores are taken.
    """
    threads = min(runtime.threads or usable_cores(), usable_cores())
    train, _ = data.split(params.split.validation, params.split.seed)
    size, precision = params.float.batch_size, params.float.precision
    if precision == "bfloat16" and not has_bfloat16():
        precision = "float32"
    alike = {"batch_size": size, "precision": precision}
    params = params.model_copy(update={v: params.variant(v).model_copy(update=alike) for v in VARIANTS})
    for variant in VARIANTS:
        check_recipe(params, variant, train)
    images, labels = torch.from_numpy(train.images[:size]), torch.from_numpy(train.labels[:size]).long()
    generator = torch.Generator().manual_seed(runtime.seed)

    def step(variant: Variant) -> Callable[[], object]:
        torch.manual_seed(runtime.seed)
        run = Run(make_network(data, params, variant, train))
        loop = Loop(run, params.training, params.variant(variant), len(train))
        run.model.train()
        return lambda: loop.step(loop.augment(images, generator), labels)

    with timing_lock(), use_threads(threads):
        contestants: dict[str, Callable[[], object]] = {variant: step(variant) for variant in VARIANTS}
        timings = compare(contestants, threads=threads, repeats=repeats, budget_seconds=budget_seconds)
    steps = len(train) // size
    about = {"threads": threads, "precision": precision, "images": steps * size}
    return {v: _numbers(timings[v], steps, size) for v in VARIANTS} | about


def _numbers(timing: Timing, steps: int, batch: int) -> dict[str, Any]:
    return {
        "seconds_per_epoch": round(timing.median * steps, 3),
        "iqr_seconds": round(timing.iqr * steps, 3),
        "images_per_second": round(batch / timing.median, 1),
        "noisy": timing.noisy,
    }
