"""Train a binary network of your own, pack it and run it: python examples/own_network.py own.safetensors."""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from xnornet.engine import PackedNetwork
from xnornet.export import pack
from xnornet.nn import Normalize, XnorConv2d, binary_layers, centre_, clamp_


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, H, W, C) and their classes (N,): put your own here."""
    bunch = load_digits()
    return (bunch.images * 255 / 16).astype(np.uint8)[..., None], bunch.target


def network(images: np.ndarray) -> nn.Sequential:
    """A float layer, binary ones, a float layer. Each binary layer needs a BatchNorm before it, or signs say little."""
    model = nn.Sequential(
        Normalize(1),
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32)),
        *(XnorConv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(64)),
        *(XnorConv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )
    model[0].mean.fill_(images.mean() / 255)  # one number a channel, on the scale 0 to 1; they travel with the file
    model[0].std.fill_(images.std() / 255)
    return model


def train(model: nn.Sequential, images: np.ndarray, classes: np.ndarray, epochs: int = 10) -> None:
    """Adam without weight decay; after each step latent weights are centred and clamped, as in the paper's code."""
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(classes).long()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            for layer in binary_layers(model):
                centre_(layer.weight)
                clamp_(layer.weight)
        scheduler.step()
    model.eval()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = sys.argv[1]
    torch.manual_seed(0)
    images, classes = digits()
    seen, unseen = slice(None, 1400), slice(1400, None)
    model = network(images[seen])
    train(model, images[seen], classes[seen])

    pack(model, {"classes": [str(digit) for digit in range(10)]}, image_size=8).save(path)

    net = PackedNetwork.load(path)
    logits = net(images[unseen], threads=2)  # float32 (N, 10)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(images[unseen]).permute(0, 3, 1, 2)).numpy()
    print(net.summary())
    print(f"{100 * np.mean(logits.argmax(1) == classes[unseen]):.1f} % of {len(logits)} images right, packed")
    print(f"logits differ from torch's by {np.abs(logits - wanted).max():.1e} at most")


if __name__ == "__main__":
    main()
