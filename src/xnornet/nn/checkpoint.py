"""Checkpoints: training that is killed at any moment goes on from the last one; they take 2 % of its time at most.

DVC knows nothing of them: a training half done is no result, to be hashed, cached or compared.
"""

import hashlib
import io
import json
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torchvision

from xnornet.files import atomic

PACKAGE = Path(__file__).parents[1]
CODE = (PACKAGE / "nn", PACKAGE / "data/prepared.py", PACKAGE / "params/trainings.py")
KEPT = 2
DIGEST = hashlib.sha256().digest_size
OVERHEAD = 0.02  # checkpoints may take this share of the training time


def key(*parts: Any) -> str:
    """Digest of what decides the outcome: code, versions, and `parts` (parameters, data) as JSON.

    Parameters as they are written: with `device: auto` and `threads: 0`, a training goes on on another machine.
    """
    digest = hashlib.sha256(f"{torch.__version__} {torchvision.__version__}".encode())
    for root in CODE:
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            digest.update(path.read_bytes())
    digest.update(json.dumps(parts, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def earlier_result(path: Path, columns: Iterable[str], title: str) -> dict[str, float] | None:
    """What an earlier call wrote of its finished training, {column: number}; None if there is none, or none whole."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        result = {column: float(written[column]) for column in columns}
        if not all(map(math.isfinite, result.values())):
            raise ValueError(result)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        print(f"{title}: {path} is damaged ({error!r}); training again", file=sys.stderr)
        return None
    print(f"{title}: trained before, result in {path}", file=sys.stderr)
    return result


class Checkpoints:
    """The checkpoints of one training, `folder/<key>-<epoch>.pt`; those of other keys are removed at the first save."""

    def __init__(self, folder: str | Path, key: str) -> None:
        self.folder = Path(folder)
        self.key = key
        self._last_saved = time.monotonic()
        self._cost = 0.0

    def save(self, epoch: int, state: dict[str, Any], *, last: bool) -> None:
        """Write the state after `epoch`, unless the last is so fresh that writing would take over 2 % of the time."""
        if not last and time.monotonic() - self._last_saved < self._cost / OVERHEAD:
            return
        start = time.monotonic()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        # Its digest first: torch.load notices no damage inside of a tensor.
        with (
            atomic(self._path(epoch)) as part,
            part.open("wb") as file,
        ):  # Python's, whose errors (disk full) are OSErrors
            file.write(hashlib.sha256(buffer.getbuffer()).digest())
            file.write(buffer.getbuffer())
        kept = self._existing()[:KEPT]
        for path in self.folder.glob("*.pt*"):
            if path not in kept and path.suffix != ".damaged":  # which stay to be looked at until the end
                path.unlink(missing_ok=True)
        self._last_saved = time.monotonic()
        self._cost = self._last_saved - start

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest whole state, or None. A damaged one is set aside with a warning, and the one before it used."""
        for path in self._existing():
            data = memoryview(path.read_bytes())
            digest, saved = data[:DIGEST], data[DIGEST:]
            if hashlib.sha256(saved).digest() == digest:
                # weights_only: tensors and plain values; nothing in the file is executed.
                return torch.load(io.BytesIO(saved), map_location=device, weights_only=True)
            damaged = path.with_suffix(".pt.damaged")
            path.replace(damaged)
            print(f"checkpoint {path} is damaged; set aside as {damaged.name}", file=sys.stderr)
        return None

    def clear(self) -> None:
        """Remove this training's, damaged ones too: its outputs are written."""
        for path in self.folder.glob(f"{self.key}-*.pt*"):
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, epoch: int) -> Path:
        return self.folder / f"{self.key}-{epoch:05d}.pt"

    def _existing(self) -> list[Path]:
        """The newest first."""
        paths = self.folder.glob(f"{self.key}-*.pt")
        return sorted(paths, key=lambda path: int(path.stem.rpartition("-")[2]), reverse=True)
