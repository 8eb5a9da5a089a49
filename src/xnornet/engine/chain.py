"""Binary layers in one call, each fused with the sign that follows it: bits in, bits out."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xnornet.engine import bits
from xnornet.engine.arguments import thread_count
from xnornet.engine.geometry import Shape, Window
from xnornet.engine.images import PackedImages, packed_words
from xnornet.engine.program import Buffer, Program, Programs, pass_images
from xnornet.engine.steps import Epilogue, add_binary_conv
from xnornet.engine.weights import BinaryWeights


class Fused(NamedTuple):
    """A layer and the sign that follows it. weights: the layer's own but for some signs, see `without_flips`."""

    window: Window
    weights: BinaryWeights
    epilogue: Epilogue
    is_dense: bool = False

    def output(self, shape: Shape) -> Shape:
        """Of images of that shape."""
        if self.is_dense and shape.pixels > 1:
            raise ValueError(
                f"a dense layer takes rows, images of one pixel, and was given some of {shape.height}x{shape.width}"
            )
        return Shape(*self.window.output(shape.height, shape.width), self.weights.channels)


class PackedChain:
    """Layers, each fused with the sign that follows it, in one call: bits in, bits out.

    `PackedConv2d.then_sign` makes one of a single layer, `then` joins two.
    """

    def __init__(self, fused: Sequence[Fused]) -> None:
        self.fused = tuple(fused)
        self._programs = Programs()
        for one, following in pairwise(self.fused):
            made = one.weights.channels, one.epilogue.bits_padding
            taken = following.weights.depth, following.window.padding
            if made != taken:
                raise ValueError(
                    f"the next layer must take what this one makes, {made[0]} channels and padding {made[1]}, not "
                    f"{taken[0]} and {taken[1]}"
                )

    def __repr__(self) -> str:
        layers = ", ".join(f"{one.weights.depth} -> {one.weights.channels}" for one in self.fused)
        return f"{type(self).__name__}({layers})"

    def then(self, other: "PackedChain") -> "PackedChain":
        """Both, one after the other. ValueError if the other takes images of other channels or padding."""
        if not isinstance(other, PackedChain):
            raise ValueError(f"the next must be what `then_sign` of a layer returns, not {type(other).__name__}")
        return PackedChain(self.fused + other.fused)

    def __call__(self, packed: PackedImages, threads: int = 1, out: PackedImages | None = None) -> PackedImages:
        """The last layer's signs, padded for the layer that they go to.

        out: the result of an earlier call with as many images of the same size, to be overwritten. ValueError for
        another one and, else, as for `PackedConv2d.run_packed`.
        """
        first, last = self.fused[0], self.fused[-1]
        words = packed_words(packed, first.weights.depth, first.window.padding)
        threads = thread_count(threads)
        program = self._programs.get(("sign", words.shape[1:])) or self._make(packed)
        wanted = (len(words), *program.result)
        if out is None:
            out = PackedImages.made(np.zeros(wanted, np.uint64), last.weights.channels, last.epilogue.bits_padding)
        else:
            self._check_out(out, wanted, words)
        program(words, out.words, threads)
        return out

    def _make(self, images: PackedImages) -> Program:
        shapes = [images.shape]
        for one in self.fused:
            shapes.append(one.output(shapes[-1]))
        *between, last = [
            shape.padded(one.epilogue.bits_padding) for shape, one in zip(shapes[1:], self.fused, strict=True)
        ]
        result = last.height, last.width, bits.word_count(last.depth)
        first = shapes[0].padded(self.fused[0].window.padding)
        most = max(shapes[0].float_bytes, *(shape.packed_bytes for shape in [first, *between, last]))
        program = Program(pass_images(max(shape.pixels for shape in shapes[1:]), most), result)
        buffers = [None, *(Buffer(shape.packed_bytes * program.batch) for shape in between), None]
        for one, shape, (source, target) in zip(self.fused, shapes[:-1], pairwise(buffers), strict=True):
            epilogue = replace(one.epilogue, bits=target)
            add_binary_conv(program, one.weights, source, shape, one.window.padding, one.window, epilogue)
        return self._programs.keep(("sign", images.words.shape[1:]), program)

    def _check_out(self, out: PackedImages, wanted: tuple[int, ...], words: NDArray[np.uint64]) -> None:
        last = self.fused[-1]
        if not (
            isinstance(out, PackedImages)
            and (out.words.shape, out.words.dtype) == (wanted, np.uint64)
            and (out.channels, out.padding) == (last.weights.channels, last.epilogue.bits_padding)
            and (out.words.flags.c_contiguous and out.words.flags.writeable)
            and not np.may_share_memory(out.words, words)
            and out.is_clean()  # the kernels write neither padding nor bits without a channel
        ):
            raise ValueError(
                f"out must be the result of an earlier call, uint64 words of shape {wanted}, and not the input"
            )
