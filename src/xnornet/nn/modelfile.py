"""Trained networks on disk: safetensors, with what is needed to build the network again as metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from xnornet.files import atomic
from xnornet.nn.models import LeNet5, ResNet18, build_model


class ModelFileError(ValueError):
    """A model file is missing, damaged or not one of ours."""


def save_model(
    path: str | Path, model: torch.nn.Module, architecture: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write the network's weights and buffers, atomically; the same bytes for the same network.

    architecture: the arguments of `build_model`. about: anything else worth knowing (data set, data md5, ...), as JSON.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(path) as part:
        # One metadata key: safetensors writes several in an order that changes from run to run.
        metadata = {"xnornet": json.dumps({"architecture": dict(architecture), **about})}
        part.write_bytes(serialize(tensors, metadata))  # by Python, whose errors (disk full) are OSErrors


def load_model(path: str | Path, *, data_md5: str | None = None) -> tuple[LeNet5 | ResNet18, dict[str, Any]]:
    """Read a network, on the CPU and in evaluation mode, and what `save_model` was told about it.

    data_md5: of the data that it must have been trained on. ModelFileError, also for a file that is none of ours.
    """
    try:
        # safe_open calls every file that it cannot open missing, one without permission too: let Python say it.
        with Path(path).open("rb"), safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["xnornet"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        model = build_model(**about.pop("architecture"))
        model.load_state_dict(tensors)
    except FileNotFoundError:
        raise ModelFileError(f"{path} not found: train it with `dvc repro` or stages/train.py") from None
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{path} is no model file of ours ({error}): train it again") from None
    if data_md5 not in (None, about.get("data_md5")):
        raise ModelFileError(f"{path} was trained on other data than are prepared here: train it again")
    model.eval()
    return model, about
