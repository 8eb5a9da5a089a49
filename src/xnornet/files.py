"""Files: writing results so that a killed process never leaves one that looks finished; and their md5."""

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it to `path`, on failure remove it.

    The temporary name keeps the suffix, since libraries (matplotlib) choose the format by it. What a killed process
    left of the same file is removed; git and DVC ignore such names.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.part{path.suffix}"):
        if not _is_running(left.name.removesuffix(f".part{path.suffix}").rpartition(".")[2]):
            left.unlink(missing_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _is_running(process: str) -> bool:
    """Whether the process of this number runs; its file is not to be taken from it."""
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    return int(process) != os.getpid()


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinities are a ValueError, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write `frame` without its index, atomically."""
    with atomic(path) as part:
        frame.to_csv(part, index=False, lineterminator="\n")


def md5(path: str | Path) -> str:
    """md5 of a file in hexadecimal, which is also DVC's name for it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
