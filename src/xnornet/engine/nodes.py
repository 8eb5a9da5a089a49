"""The operations of a packed network as plain descriptions, and reading them from anywhere."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from xnornet.engine.geometry import Shape, Window

IMAGE = "image"
"""The name of the input, uint8."""

LIMIT_BYTES = 1 << 28
"""The most that an image's values, the weights and all tables may take, as `Graph` estimates it before any is made."""

LIMIT_WORK = 1 << 34
"""The most products (or comparisons of a pooling) an image: no file can make a reader run for hours."""

LIMIT_SIDE = 1 << 13
LIMIT_DEPTH = 1 << 20
LIMIT_NODES = 1000


class FormatError(ValueError):
    """A packed network that cannot be what `PackedNetwork.save` wrote; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One fused operation. `op` decides which of the fields it has, see `FIELDS`."""

    op: str
    name: str
    input: str
    output: str | None = None
    """Float32 value that it makes, or none."""
    bits: str | None = None
    """Packed bits that it makes: its results compared with a threshold a channel; or none."""
    residual: str | None = None
    """Float32 value that is added to the result, after its `relu`."""
    scale_map: str | None = None
    """K of each output pixel, by which the result is multiplied before its bias is added."""
    channels: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: int = 0
    bias: bool = False
    relu: bool = False

    @property
    def window(self) -> Window:
        return Window(*self.kernel, self.stride, self.padding)

    @property
    def counts(self) -> bool:
        """Whether a binary convolution makes nothing but bits, by a threshold on its integer counts."""
        return self.output is None

    def describe(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {name: _plain(getattr(self, name)) for name in ("op", "name", "input", *FIELDS[self.op])}


FIELDS: dict[str, tuple[str, ...]] = {
    "normalize": ("output",),
    "float_conv": ("output", "bits", "channels", "kernel", "stride", "padding", "bias", "relu"),
    "binary_conv": (
        *("output", "bits", "residual", "scale_map"),
        *("channels", "kernel", "stride", "padding", "bias", "relu"),
    ),
    "pool_bits": ("bits", "kernel", "stride"),
    "pool_floats": ("output", "kernel", "stride"),
    "batch_norm": ("output", "bits", "relu"),
    "input_scale": ("output", "kernel", "stride", "padding"),
    "average": ("output",),
}
"""The operations, and the fields of each beside op, name and input."""


@dataclass(frozen=True)
class ValueInfo:
    """Kind and size of a value, and the zero padding that its reader wants around it."""

    kind: Literal["uint8", "float32", "bits"]
    shape: Shape
    padding: int = 0

    @property
    def size(self) -> int:
        """Bytes of one image."""
        padded = self.shape.padded(self.padding)
        if self.kind == "bits":
            return padded.packed_bytes
        return padded.float_bytes if self.kind == "float32" else padded.pixels * padded.depth


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_keys(what: str, value: Any, wanted: set[str]) -> None:
    """FormatError unless the value is a JSON object with just these keys."""
    if not isinstance(value, dict) or set(value) != wanted:
        seen = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise FormatError(f"{what} must have the keys {sorted(wanted)}, not {seen}")


def name_of(what: str, value: Any) -> str:
    """A value read from JSON that must be a name of 1 to 100 letters; else FormatError."""
    if not isinstance(value, str) or not 0 < len(value) <= 100:
        raise FormatError(f"{what} must be a name, not {value!r:.100}")
    return value


def json_integer(what: str, value: Any, least: int, most: int) -> int:
    """A value read from JSON that must be an integer in this range; else FormatError."""
    if type(value) is not int or not least <= value <= most:
        raise FormatError(f"{what} must be an integer from {least} to {most}, not {value!r:.100}")
    return value


def json_sizes(what: str, value: Any, count: int) -> list[int]:
    """A value read from JSON that must be a list of so many sizes in pixels; else FormatError."""
    if not isinstance(value, list) or len(value) != count:
        raise FormatError(f"{what} must be a list of {count} integers, not {value!r:.100}")
    return [json_integer(what, entry, 1, LIMIT_SIDE) for entry in value]


def parse_node(value: Any) -> Node:
    """A value read from JSON that must be the description of a node, as `Node.describe` gives it; else FormatError."""
    if not isinstance(value, dict) or not isinstance(value.get("op"), str) or value["op"] not in FIELDS:
        raise FormatError(f"a node must have an op, one of {', '.join(FIELDS)}, not {value!r:.100}")
    op = value["op"]
    check_keys(f"a {op} node", value, {"op", "name", "input", *FIELDS[op]})
    parsed: dict[str, Any] = {"op": op}
    for name, entry in value.items():
        if name == "kernel":
            height, width = json_sizes("kernel", entry, 2)
            parsed[name] = (height, width)
        elif name in ("stride", "channels", "padding"):
            most = LIMIT_DEPTH if name == "channels" else LIMIT_SIDE
            parsed[name] = json_integer(name, entry, 0 if name == "padding" else 1, most)
        elif name in ("bias", "relu"):
            if not isinstance(entry, bool):
                raise FormatError(f"{name} must be true or false, not {entry!r:.100}")
            parsed[name] = entry
        else:
            parsed[name] = None if entry is None else name_of(name, entry)
    if parsed["name"] is None or parsed["input"] is None:
        raise FormatError(f"a {op} node must have a name and an input")
    return Node(**parsed)


def check_node(node: Node) -> None:
    """FormatError unless a file could hold the node: a known op, values in range, and no fields of other ops."""
    if node.op not in FIELDS:
        raise FormatError(f"a node must have an op, one of {', '.join(FIELDS)}, not {node.op!r:.100}")
    if parse_node(node.describe()) != node:
        raise FormatError(f"{node.name}: a {node.op} node has just op, name, input, {', '.join(FIELDS[node.op])}")


assert set().union(*FIELDS.values()) <= {entry.name for entry in fields(Node)}
