"""How large the corrected gradient's term through alpha is beside the other, in the first steps of a training.

Usage: python scripts/gradient_terms.py [--steps 500]. Trains LeNet-5 on MNIST with the recipe of the study (no
`output_norm`, learning rate 1e-3) and prints, for each binary layer, the norm of the first term over that of the second
and how alike each of the two is from one step to the next (cosine), as means of 20 steps. Needs data/mnist.safetensors.
"""

import argparse
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from xnornet.data import Prepared
from xnornet.nn import binarize
from xnornet.nn.layers import binary_layers
from xnornet.nn.loop import Loop, Run
from xnornet.nn.training import make_network
from xnornet.params import load, settings_of
from xnornet.stage import stage

MEAN_OF = 20
LAYERS = {"conv2": (50, 20, 5, 5), "fc1": (500, 800)}


def terms(weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the corrected gradient, the one through alpha and the one through the sign, flat."""
    detached = binarize.ste_backward(binarize.alpha(weight) * grad, weight)
    return (binarize.update_binary_grad_weight(weight, grad) - detached).flatten(), detached.flatten()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    steps = parser.parse_args().steps
    if steps < 5 * (MEAN_OF + 1):
        parser.error(f"--steps must be at least {5 * (MEAN_OF + 1)}, not {steps}")
    torch.set_num_threads(1)
    params = load()
    settings = settings_of(params.mnist, params.study, params.study.base)
    data = Prepared.load("data/mnist.safetensors")
    train, _ = data.split(settings.split.validation, settings.split.seed)
    torch.manual_seed(params.runtime.seed)
    run = Run(make_network(data, settings, "xnor", train))
    loop = Loop(run, settings.training, settings.xnor, len(train))
    shapes = {layer.weight.shape for layer in binary_layers(run.model.train())}
    assert shapes == {torch.Size(shape) for shape in LAYERS.values()}
    seen: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {shape: [] for shape in shapes}

    def watched(weight: Tensor, grad: Tensor) -> Tensor:
        seen[weight.shape] = [*seen[weight.shape][1 - MEAN_OF :], terms(weight, grad)]
        return binarize.update_binary_grad_weight(weight, grad)

    binarize._GRADIENTS["corrected"] = watched
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels).long()
    generator = torch.Generator().manual_seed(params.runtime.seed)
    for step in range(1, steps + 1):
        chosen = torch.randint(len(images), (settings.xnor.batch_size,), generator=generator)
        loop.step(loop.augment(images[chosen], generator), labels[chosen])
        if step in (MEAN_OF + 1, steps // 5, steps // 2, steps):
            for name, shape in LAYERS.items():
                history = seen[torch.Size(shape)]
                ratio = sum(float(a.norm() / b.norm()) for a, b in history) / len(history)
                pairs = list(pairwise(history))
                alike = [sum(float(F.cosine_similarity(x[i], y[i], 0)) for x, y in pairs) / len(pairs) for i in (0, 1)]
                print(f"step {step}, {name}: ratio {ratio:.2f}, cosine {alike[0]:.2f} (alpha), {alike[1]:.2f} (sign)")


if __name__ == "__main__":
    with stage():
        main()
