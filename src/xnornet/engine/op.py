"""One operation of a program: the record that Python fills in and the kernels read, all addresses and sizes.

A program is an array of these records, and the kernels check nothing: `layers` and, for whole networks, `graph` check
sizes and limits before `steps` and `builder` write a record, and `geometry` refuses offsets that a table cannot hold.
"""

from enum import IntEnum

import numpy as np


class Kind(IntEnum):
    """What an operation does; `kernels` and `convolution` say how."""

    PACK = 0
    FOLD = 1
    BINARY_CONV = 2
    NORMALIZE = 3
    FLOAT_CONV = 4
    POOL_BITS = 5
    POOL_FLOATS = 6
    BATCH_NORM = 7
    INPUT_SCALE = 8
    AVERAGE = 9
    RUNNING_XORS = 10
    RUNNING_CONV = 11


class Mode(IntEnum):
    """What a convolution's epilogue does with its results, flags to be added up."""

    STORE = 1  # store floats at `target`
    RESIDUAL = 2  # after adding those at `residual`, to what RELU leaves
    BITS = 4  # compare the floats with `threshold` and store bits
    SCALE = 8  # multiply by the input scale K of the pixel, at `scale_map`
    RELU = 16  # negative results become 0
    COUNTS = 32  # compare the integer counts with `threshold` and store bits; no floats are made


FIELDS = (
    "kind",
    "mode",
    # Addresses; 0 for `source`, `target` or `bits` stands for the caller's array.
    "source",
    "target",
    "bits",
    "residual",
    "scale_map",
    "weights",  # panels of output channels, (panels, vectors, 64 bytes), see `panels`
    "offsets",  # int64 (entries, 2), bytes of each tap from a window's first word or float, and from a panel's first
    # weight; NORMALIZE: see `builder`
    "lookup",  # looked up: uint8 (256, 16), see `counter`
    "rounds",  # int64 (rounds, 4), (stretches, 3) and (parts, 4), in place of `offsets`, see `rounds.Rounds`
    "stretches",
    "parts",
    "runs",  # int64 (runs, 4), see `plan.Plan`, as for `blocks` and the order of the pixels in all tables of them
    "blocks",  # int64 (blocks + 1,)
    "order",  # int32 (pixels of a pass,), number of the pixel's result
    "pixels",  # int32 (pixels of a pass,), bytes from `source` to the first word or float of the pixel's window
    "bit_offsets",  # int32 (pixels of a pass,), bytes from `bits` to the pixel's bits
    "border",  # int32 (pixels of a pass,), bytes from `table` to the pixel's row
    "table",  # (border patterns, channels): float32 starts of the counts or, with COUNTS, limits of popcounts;
    # NORMALIZE: float32 (depth, 256), see `builder`
    "scale",  # float32 (channels,)
    "bias",  # float32 (channels,)
    "threshold",  # float32 (channels,)
    "flip",  # uint8 (channels / 8,), bits to invert after the comparison of floats
    # Sizes.
    "vectors",  # of weights, in a panel
    "group",  # RUNNING_XORS, RUNNING_CONV: words, of 32 bits, that are counted together; a tap has so many
    "large",  # looked up: 1 if a run has several rounds
    "block_count",
    "channels",  # of the output; FOLD: of the input
    "count",  # output pixels of one image; BATCH_NORM, AVERAGE: input pixels
    "units",  # that threads may share, see `sharing`; at least 1
    "relu",  # of a BatchNorm, 1: negative floats become 0
    "height",  # of the input; FOLD: with its padding
    "width",
    "depth",  # channels of the input; POOL_BITS: words a pixel; FOLD: words an output pixel
    "out_height",
    "out_width",
    "kernel_height",
    "kernel_width",
    "stride",
    "padding",
    "source_padding",
    "target_padding",
    # Bytes from one image to the next.
    "source_bytes",
    "target_bytes",
    "bits_bytes",
)

OP = np.dtype([(name, np.int64) for name in FIELDS])
OFFSET = {name: 8 * index for index, name in enumerate(FIELDS)}
"""Byte offset of each field in a record."""
