"""The file of a packed network: safetensors, with one entry of metadata that describes, and vouches for, everything.

The entry is JSON: format version, bit order, the network's description, what the caller wants to travel along, and a
SHA-256 over all that and every tensor. A reader believes nothing: the length of the header before it parses it, the
sizes of tensors before it copies them, the digest before it builds a network.
"""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from xnornet.engine.bits import BIT_ORDER
from xnornet.engine.nodes import LIMIT_BYTES, FormatError

VERSION = 1
ENTRY = "xnornet"
LIMIT_HEADER = 1 << 22
LIMIT_TENSORS = 2 * LIMIT_BYTES
"""More than all tensors of a network within `LIMIT_BYTES` take, scales and biases included."""
DTYPES: dict[str, np.dtype] = {"F32": np.dtype(np.float32), "I32": np.dtype(np.int32), "U8": np.dtype(np.uint8)}


def write(
    path: str | os.PathLike[str], network: dict[str, Any], tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """Write the file under a temporary name, flush it to the disk, rename it: no reader ever sees half of it.

    The name is this call's own, whoever else writes at the time. A killed process leaves such a file behind.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    content = {"format": VERSION, "bit_order": BIT_ORDER, "about": dict(about), "network": network}
    content["sha256"] = _digest(content, contiguous)
    data = safetensors.numpy.save(contiguous, metadata={ENTRY: _json(content)})
    if (length := int.from_bytes(data[:8], "little")) > LIMIT_HEADER:
        raise ValueError(f"a header of {length} bytes, where a reader takes {LIMIT_HEADER}: put less into about")
    part = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes. FormatError, before it is read whole, if it is no packed network, or larger than one can be."""
    with Path(path).open("rb") as stream:
        start = stream.read(8 + LIMIT_HEADER)
        _content(start)
        rest = stream.read(LIMIT_TENSORS + 1)
    if len(rest) > LIMIT_TENSORS:
        raise FormatError("the file is larger than a packed network can be")
    return start + rest


def plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """`about` as a file gives it back, with lists for tuples and names for numbered keys. ValueError if none can."""
    try:
        return json.loads(_json(dict(about)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"about must hold plain values that JSON has: {error}") from error


def parse(data: bytes) -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
    """(network description, tensors, about) of a file. FormatError if it is damaged, foreign or of another version."""
    content = _content(data)
    tensors = _tensors(data)
    digest = content.pop("sha256")
    try:
        right = _digest(content, tensors)
    except (ValueError, RecursionError) as error:  # what Python reads, but does not write: 1e999
        raise FormatError("the metadata holds what JSON does not allow") from error
    if digest != right:
        raise FormatError("the checksum does not fit: the file is damaged or was edited")
    if content["format"] != VERSION or content["bit_order"] != BIT_ORDER:
        raise FormatError(
            f"format {content['format']!r}, bit order {content['bit_order']!r}; this reader knows format {VERSION}"
        )
    if not isinstance(content["about"], dict):
        raise FormatError("about must be an object")
    return content["network"], tensors, content["about"]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(content: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(_json(content).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.data if tensor.size else b"")
    return digest.hexdigest()


def _content(data: bytes) -> dict[str, Any]:
    """The entry of metadata, parsed."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, LIMIT_HEADER):
        raise FormatError("not a packed network: the file is too short for its header")
    try:
        header = json.loads(data[8 : 8 + length])
        content = json.loads(header["__metadata__"][ENTRY])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"not a packed network: no readable {ENTRY!r} metadata") from error
    if not isinstance(content, dict) or set(content) != {"format", "bit_order", "about", "network", "sha256"}:
        raise FormatError(f"the {ENTRY!r} metadata does not have the keys that it must have")
    return content


def _tensors(data: bytes) -> dict[str, np.ndarray]:
    try:
        entries: Any = safetensors.deserialize(data)
    except (safetensors.SafetensorError, ValueError, OverflowError, TypeError) as error:
        raise FormatError(f"not a safetensors file: {error}") from error
    tensors = {}
    for name, entry in entries:
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None:
            raise FormatError(f"{name}: tensors are {', '.join(DTYPES)}, not {entry['dtype']}")
        try:
            tensors[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
        except ValueError as error:  # more axes, or an axis longer, than NumPy has
            raise FormatError(f"{name}: {error}") from error
    return tensors
