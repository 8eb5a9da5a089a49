"""Single packed layers: binary convolution and binary dense layer, float32 in and out or bits in and out."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from xnornet.engine import bits
from xnornet.engine.arguments import (
    Floats,
    array_kind,
    channel_floats,
    channel_integers,
    floats_of,
    integer,
    thread_count,
)
from xnornet.engine.chain import Fused, PackedChain
from xnornet.engine.geometry import Shape, Window
from xnornet.engine.images import PackedImages, packed_words
from xnornet.engine.nodes import LIMIT_SIDE
from xnornet.engine.op import Mode
from xnornet.engine.program import Buffer, Program, Programs, pass_images
from xnornet.engine.steps import Epilogue, add_binary_conv, add_input_scale, add_pack
from xnornet.engine.weights import MOST_PRODUCTS, BinaryWeights, without_flips


class PackedConv2d:
    """Binary convolution scale * (sign(x) conv sign(weight)) + bias on packed words (Rastegari et al. 2016).

    weight: float32 (O, C, kh, kw), finite; only its signs are kept. scale: (O,), default alpha = mean|weight| of each
    output channel; bias: (O,), default none. Zero padding after the sign: a padded tap adds 0. sign(0) = sign(-0.0) =
    +1. Results are those of integer arithmetic, then rounded after the product with the scale and after the sum.
    ValueError names the argument that is wrong.
    """

    def __init__(
        self,
        weight: ArrayLike,
        *,
        stride: int = 1,
        padding: int = 0,
        scale: ArrayLike | None = None,
        bias: ArrayLike | None = None,
    ) -> None:
        array = floats_of("weight", weight, "(O, C, kh, kw)", 4)
        if 0 in array.shape:
            raise ValueError(f"weight must not be empty, but its shape is {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("weight must be finite, but it holds NaN or infinity")
        if array[0].size >= MOST_PRODUCTS:
            raise ValueError(
                f"weight has {array[0].size} products an output; float32 counts exactly below {MOST_PRODUCTS}"
            )
        self._out_channels, self._in_channels, height, width = array.shape
        stride, padding = integer("stride", stride, 1, LIMIT_SIDE), integer("padding", padding, 0, LIMIT_SIDE)
        self._window = Window(height, width, stride, padding)
        alpha = np.abs(array).mean(axis=(1, 2, 3), dtype=np.float64) if scale is None else scale
        self._scale = channel_floats("scale", alpha, self.out_channels)
        self._bias = None if bias is None else channel_floats("bias", bias, self.out_channels)
        self._weights = BinaryWeights.of(array.transpose(0, 2, 3, 1))
        self._programs = Programs()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied or unpickled array can be written to: freeze it again."""
        vars(self).update(state)
        for array in (self._scale, self._bias):
            if array is not None:
                array.flags.writeable = False

    def __repr__(self) -> str:
        window = self.window
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, kernel={window.kernel_height}x"
            f"{window.kernel_width}, stride={window.stride}, padding={window.padding}, bias={self.bias is not None})"
        )

    @property
    def in_channels(self) -> int:
        """C. Read-only, as all of these are: a layer's programs have them in them."""
        return self._in_channels

    @property
    def out_channels(self) -> int:
        return self._out_channels

    @property
    def window(self) -> Window:
        return self._window

    @property
    def scale(self) -> Floats:
        """(O,), read-only, as the bias is."""
        return self._scale

    @property
    def bias(self) -> Floats | None:
        return self._bias

    def __call__(self, x: Floats, input_scale: bool = False, threads: int = 1) -> Floats:
        """float32 (N, H, W, C) -> float32 (N, H', W', O).

        input_scale: multiply by K, mean|x| over the channels under a box filter (Rastegari et al. 2016, eq. 11).
        threads: share out the images or, of a single image that takes long enough, the work, on no more than the cores
        (or NUMBA_NUM_THREADS); the result has the same bits.
        ValueError for a wrong dtype, rank or number of channels, for NaN, and for an image smaller than the kernel.
        """
        x, threads = self._images(x), thread_count(threads)
        if type(input_scale) is not bool and not isinstance(input_scale, np.bool_):  # a number of threads, unnamed?
            raise ValueError(f"input_scale must be True or False, not {input_scale!r}")
        kind = "scaled" if input_scale else "float"
        program = self._programs.get((kind, x.shape[1:])) or self._make_float(kind, x.shape[1:])
        y = np.empty((len(x), *program.result), np.float32)
        if program(x, y, threads):
            raise ValueError("x holds NaN, which has no sign")
        return y

    def pack(self, x: Floats, threads: int = 1) -> PackedImages:
        """Pack the signs of float32 (N, H, W, C), padded for this layer. ValueError as for a call."""
        x, threads = self._images(x), thread_count(threads)
        program = self._programs.get(("pack", x.shape[1:])) or self._make_pack(x.shape[1:])
        words = np.zeros((len(x), *program.result), np.uint64)
        if program(x, words, threads):
            raise ValueError("x holds NaN, which has no sign")
        return PackedImages.made(words, self._in_channels, self._window.padding)

    def run_packed(self, packed: PackedImages, threads: int = 1) -> Floats:
        """What a call makes of the images that `pack` packed: float32 (N, H', W', O).

        ValueError for images of other channels, padding or size than the layer takes, and for words that are not
        contiguous, or not zero where they must be.
        """
        words, threads = packed_words(packed, self._in_channels, self._window.padding), thread_count(threads)
        program = self._programs.get(("packed", words.shape[1:])) or self._make_packed(packed)
        y = np.empty((len(words), *program.result), np.float32)
        program(words, y, threads)
        return y

    def then_sign(self, threshold: ArrayLike, flip: ArrayLike | None = None, *, padding: int = 0) -> PackedChain:
        """This layer fused with a BatchNorm and sign that follow: a function of `PackedImages`, bits in, bits out.

        The bit of output channel o is (count >= threshold[o]) xor flip[o], where count = sign(x) conv sign(weight), an
        integer; scale and bias belong into the threshold. threshold: int32 (O,); flip: bool (O,), for a negative slope.
        padding: that of the layer that the result goes to. ValueError for another type or shape.
        """
        limits = channel_integers("threshold", threshold, self.out_channels)
        flips = np.zeros(self.out_channels, bool) if flip is None else np.array(flip)
        if flips.shape != (self.out_channels,) or flips.dtype != bool:
            raise ValueError(
                f"flip must be bool ({self.out_channels},), one a channel, not {flips.dtype} {flips.shape}"
            )
        padding = integer("padding", padding, 0, LIMIT_SIDE)
        weights, least = without_flips(self._weights, limits, flips)
        return PackedChain([Fused(self.window, weights, Epilogue(Mode.COUNTS, threshold=least, bits_padding=padding))])

    def _to_floats(self) -> Epilogue:
        return Epilogue(Mode.STORE, scale=self.scale, bias=self.bias)

    def _new_program(self, shape: Shape, result: tuple[int, ...]) -> Program:
        height, width = self.window.output(shape.height, shape.width)
        most = max(shape.float_bytes, shape.padded(self.window.padding).packed_bytes)
        return Program(pass_images(height * width, most), result)

    def _make_float(self, kind: str, size: tuple[int, ...]) -> Program:
        shape = Shape(*size)
        height, width = self.window.output(shape.height, shape.width)
        program = self._new_program(shape, (height, width, self.out_channels))
        epilogue = self._to_floats()
        if kind == "scaled":
            epilogue.mode |= Mode.SCALE
            epilogue.scale_map = Buffer(4 * height * width * program.batch)
            add_input_scale(program, None, epilogue.scale_map, shape, self.window)
        packed = Buffer(shape.padded(self.window.padding).packed_bytes * program.batch)
        add_pack(program, None, packed, shape, self.window.padding)
        self._add_conv(program, packed, shape, epilogue)
        return self._programs.keep((kind, size), program)

    def _make_pack(self, size: tuple[int, ...]) -> Program:
        shape = Shape(*size)
        padded = shape.padded(self.window.padding)
        program = self._new_program(shape, (padded.height, padded.width, bits.word_count(shape.depth)))
        add_pack(program, None, None, shape, self.window.padding)
        return self._programs.keep(("pack", size), program)

    def _make_packed(self, packed: PackedImages) -> Program:
        shape = packed.shape
        program = self._new_program(shape, (*self.window.output(shape.height, shape.width), self.out_channels))
        self._add_conv(program, None, shape, self._to_floats())
        return self._programs.keep(("packed", packed.words.shape[1:]), program)

    def _add_conv(self, program: Program, source: Buffer | None, shape: Shape, epilogue: Epilogue) -> None:
        add_binary_conv(program, self._weights, source, shape, self.window.padding, self.window, epilogue)

    def _images(self, x: Floats) -> Floats:
        """x, checked and contiguous."""
        if not isinstance(x, np.ndarray) or x.dtype != np.float32:
            raise ValueError(f"x must be a float32 array, not {array_kind(x)}")
        if x.ndim != 4 or x.shape[3] != self._in_channels:
            raise ValueError(f"x must have the shape (N, H, W, {self._in_channels}), channels last, not {x.shape}")
        if x.size == 0 and 0 in x.shape[1:]:  # the size first: a call of some microseconds notices a look at the shape
            raise ValueError(f"images must have pixels, but x has the shape {x.shape}")
        return np.ascontiguousarray(x)


class PackedLinear:
    """Binary dense layer scale * (sign(x) . sign(weight)) + bias on packed words.

    weight: float32 (O, F), finite; scale, bias: (O,), defaults as in `PackedConv2d`, of which it is the 1x1 case.
    """

    def __init__(self, weight: ArrayLike, *, scale: ArrayLike | None = None, bias: ArrayLike | None = None) -> None:
        array = floats_of("weight", weight, "(O, F)", 2)
        self._conv = PackedConv2d(array[:, :, None, None], scale=scale, bias=bias)
        self.out_features, self.in_features = array.shape

    @property
    def scale(self) -> Floats:
        """(O,), read-only, as the bias is."""
        return self._conv.scale

    @property
    def bias(self) -> Floats | None:
        return self._conv.bias

    def __repr__(self) -> str:
        return f"PackedLinear({self.in_features}, {self.out_features}, bias={self.bias is not None})"

    def __call__(self, x: Floats, input_scale: bool = False, threads: int = 1) -> Floats:
        """float32 (N, F) -> float32 (N, O), see `PackedConv2d`. input_scale: multiply by K = mean|x| of each row."""
        return self._conv(self._rows(x), input_scale, threads).reshape(-1, self.out_features)

    def pack(self, x: Floats, threads: int = 1) -> PackedImages:
        """Pack the signs of float32 (N, F), as images of one pixel."""
        return self._conv.pack(self._rows(x), threads)

    def run_packed(self, packed: PackedImages, threads: int = 1) -> Floats:
        """What a call makes of the rows that `pack` packed: float32 (N, O). ValueError for larger images."""
        if isinstance(packed, PackedImages) and packed.size != (1, 1):
            raise ValueError(f"packed must hold rows, images of one pixel, not of {packed.size[0]}x{packed.size[1]}")
        return self._conv.run_packed(packed, threads).reshape(-1, self.out_features)

    def then_sign(self, threshold: ArrayLike, flip: ArrayLike | None = None) -> PackedChain:
        """See `PackedConv2d.then_sign`. ValueError for images of more than one pixel, from the function."""
        (fused,) = self._conv.then_sign(threshold, flip).fused
        return PackedChain([fused._replace(is_dense=True)])

    def _rows(self, x: Floats) -> Floats:
        if not isinstance(x, np.ndarray) or x.dtype != np.float32:
            raise ValueError(f"x must be a float32 array, not {array_kind(x)}")
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"x must have the shape (N, {self.in_features}), not {x.shape}")
        return x[:, None, None, :]
