"""Damaged and edited files of packed networks, for the test and for `scripts/fuzz_format.py`."""

import copy
import ctypes
import json
import mmap
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tests.engine.networks import random_tensors, run_and_doubt
from xnornet.engine import FormatError, Graph, PackedNetwork
from xnornet.engine.file import ENTRY, _digest

INTERESTING = [0, 1, -1, 2, 3, 63, 64, 65, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 1.5, 1e400]
ODD: list[Any] = [None, True, False, "", "image", "y", "weight", [], {}, [3, 3], [0, 0], [1 << 40, 1]]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Truncated, with flipped bits, with bytes cut out, doubled, or overwritten."""
    kind = rng.randrange(6)
    header = 8 + int.from_bytes(data[:8], "little")
    # Half of the damage goes to the header: it is what a reader works with.
    place = rng.randrange(header if rng.random() < 0.5 else len(data))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data + rng.randbytes(rng.randrange(1, 64))
    changed = bytearray(data)
    if kind == 2:
        for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
            changed[rng.randrange(header if rng.random() < 0.5 else len(data))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        del changed[place : place + rng.randrange(1, 64)]
    elif kind == 4:
        changed[place:place] = changed[place : place + rng.randrange(1, 64)]
    else:
        size = rng.randrange(1, 9)
        changed[place : place + size] = rng.randbytes(size)
    return bytes(changed)


def edited(data: bytes, rng: random.Random) -> bytes:
    """The description or the tensors edited by hand, and the digest made right again.

    Half the time tensors are made to fit the edited description, where there are any: most edits would end at a shape.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(header["__metadata__"][ENTRY])
    tensors = safetensors.numpy.load(data)
    content.pop("sha256")
    for _ in range(rng.choice([1, 1, 2])):
        if rng.random() < 0.7:
            _edit(content, rng)
        else:
            _edit_tensor(tensors, rng)
    if rng.random() < 0.5:
        with suppress(FormatError):
            tensors = random_tensors(Graph.parse(content.get("network")), rng.getrandbits(32))
    try:
        content["sha256"] = _digest(content, tensors)
    except ValueError:  # infinity is no JSON
        content["sha256"] = ""
    return safetensors.numpy.save(tensors, metadata={ENTRY: json.dumps(content)})


def _paths(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in list(entries):
        yield value, key
        yield from _paths(entry)


def _edit(content: dict[str, Any], rng: random.Random) -> None:
    holder, key = rng.choice(list(_paths(content)))
    value = holder[key]
    action = rng.randrange(5)
    if action == 0 and isinstance(value, int) and not isinstance(value, bool):
        holder[key] = value + rng.choice([-2, -1, 1, 2, 7])
    elif action == 1:
        del holder[key]
    elif action == 2 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(value))
    elif action == 3:
        other, place = rng.choice(list(_paths(content)))
        holder[key] = copy.deepcopy(other[place])
    else:
        holder[key] = copy.deepcopy(rng.choice(INTERESTING + ODD))


def _edit_tensor(tensors: dict[str, np.ndarray], rng: random.Random) -> None:
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    action = rng.randrange(6)
    if action == 0:
        del tensors[name]
    elif action == 1 and len(tensor):
        tensors[name] = tensor[: rng.randrange(len(tensor))].copy()
    elif action == 2:
        tensors[name] = tensor.astype(rng.choice([np.float32, np.float64, np.int32, np.int64, np.uint8]))
    elif action == 3:
        tensors[f"{name}x"] = tensor
    elif action == 4:
        tensors[name] = tensor.reshape(-1).copy()
    elif tensor.size:
        flat = tensor.reshape(-1).copy()
        extremes = [0, 1, 255] if tensor.dtype == np.uint8 else [0, -1, 2**31 - 1, -(2**31)]
        if tensor.dtype == np.float32:
            extremes = [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0]
        flat[rng.randrange(flat.size)] = rng.choice(extremes)
        tensors[name] = flat.reshape(tensor.shape)


def same(a: PackedNetwork, b: PackedNetwork) -> bool:
    """Whether two networks are equal in everything."""
    return (
        a.graph == b.graph
        and a.about == b.about
        and set(a.tensors) == set(b.tensors)
        and all(np.array_equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    )


def survive(network: PackedNetwork, damaged_data: bytes) -> str:
    """Read damaged bytes: `refused`, or `same` if that is what they load to; anything else is an AssertionError."""
    try:
        loaded = PackedNetwork.parse(damaged_data)
    except FormatError:
        return "refused"
    assert same(network, loaded), "a damaged file loaded to another network"
    return "same"


def before_a_guard(images: np.ndarray) -> np.ndarray:
    """The images at the end of a page, before one that may not be touched: reading past them ends the process."""
    pages = -(-images.nbytes // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    guard = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages * mmap.PAGESIZE
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), mmap.PAGESIZE, 0):  # 0: PROT_NONE
        raise OSError("mprotect failed")
    start = pages * mmap.PAGESIZE - images.nbytes
    guarded = np.frombuffer(memory, np.uint8, images.nbytes, start).reshape(images.shape)
    guarded[...] = images
    return guarded


def survive_edit(network: PackedNetwork, edited_data: bytes) -> str:
    """Read an edited file with a right digest: `refused`, `same`, or `ran`: another network, that runs as in NumPy."""
    try:
        loaded = PackedNetwork.parse(edited_data)
    except FormatError:
        return "refused"
    if same(network, loaded):
        return "same"
    images = before_a_guard(np.random.default_rng(0).integers(0, 256, (2, *loaded.image_shape), dtype=np.uint8))
    logits = loaded(images)
    with np.errstate(all="ignore"):
        wanted, doubt = run_and_doubt(loaded, images)
    # An extreme value overflows in float32 at another place than in float64.
    if np.isfinite(wanted).all() and abs(wanted).max() < 1e6:
        alike = np.isclose(logits, wanted, rtol=1e-3, atol=1e-2).all(axis=1)
        assert (alike | doubt).all(), "an edited network does not run as NumPy runs it"
    return "ran"
