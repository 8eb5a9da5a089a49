"""What a network answers on a set of images."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xnornet.data import Images


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits float32 (N, classes) of uint8 images (N, H, W, C), in evaluation mode.

    Afterwards the model and all its layers are in the mode that the model itself was in.
    """
    was_training = model.training
    model.eval()
    logits = [model(batch.permute(0, 3, 1, 2)).to(torch.float32) for batch in images.split(batch_size)]
    model.train(was_training)
    return torch.cat(logits)


def predict_images(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """`predict` for NumPy: uint8 (N, H, W, C) -> float32 (N, classes), on the device that the model is on."""
    device = next(model.parameters()).device
    return predict(model, torch.from_numpy(images).to(device)).cpu().numpy()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of images whose highest logit is the label's, in percent."""
    return 100 * (logits.argmax(1) == labels).sum().item() / len(labels)


def loss_and_accuracy(model: nn.Module, data: Images) -> tuple[float, float, np.ndarray]:
    """Mean cross-entropy, accuracy in percent, and the predicted classes (N,)."""
    logits = torch.from_numpy(predict_images(model, data.images))
    labels = torch.from_numpy(data.labels).long()
    return F.cross_entropy(logits, labels).item(), accuracy(logits, labels), logits.argmax(1).numpy()
