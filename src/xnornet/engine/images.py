"""Images as packed signs: what passes from one packed layer to the next."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xnornet.engine import bits
from xnornet.engine.arguments import Floats, array_kind, integer
from xnornet.engine.geometry import Shape


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Packed signs of images (N, height, width, channels), `padding` zero words around each.

    words: uint64 (N, height + 2 padding, width + 2 padding, ceil(channels / 64)), see `xnornet.engine.bits`. Their bits
    beyond the last channel are zero too. ValueError for words that cannot be such images.
    """

    words: NDArray[np.uint64]
    channels: int
    padding: int = 0
    _made_here: bool = field(default=False, init=False, repr=False)
    """By a layer, which knows that all is zero that must be; such words must not be edited in place."""

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("padding", 0)):  # as Python's integers, which do not overflow
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        words, channels, padding = self.words, self.channels, self.padding
        if not isinstance(words, np.ndarray) or words.dtype != np.uint64 or words.ndim != 4:
            raise ValueError(f"words must be uint64 of 4 dimensions, not {array_kind(words)}")
        if words.shape[3] != bits.word_count(channels):
            raise ValueError(f"{channels} channels are {bits.word_count(channels)} words, not {words.shape[3]}")
        if min(words.shape[1:3]) <= 2 * padding:
            raise ValueError(f"words of {words.shape[1]}x{words.shape[2]} pixels are nothing but padding {padding}")

    @classmethod
    def made(cls, words: NDArray[np.uint64], channels: int, padding: int) -> "PackedImages":
        """What a layer makes: not checked again."""
        images = object.__new__(cls)
        values = {"words": words, "channels": channels, "padding": padding, "_made_here": True}
        for name, value in values.items():
            object.__setattr__(images, name, value)
        return images

    @property
    def size(self) -> tuple[int, int]:
        return self.words.shape[1] - 2 * self.padding, self.words.shape[2] - 2 * self.padding

    def signs(self) -> Floats:
        """The images as float32 -1 and +1, (N, height, width, channels)."""
        height, width = self.size
        inside = self.words[:, self.padding : self.padding + height, self.padding : self.padding + width]
        return 2 * bits.unpack_bits(inside, self.channels).astype(np.float32) - 1

    def is_clean(self) -> bool:
        """Whether the padding, and the bits beyond the last channel, are zero."""
        if self._made_here:
            return True
        height, width = self.size
        inside = np.zeros(self.words.shape[1:3], bool)
        inside[self.padding : self.padding + height, self.padding : self.padding + width] = True
        used = self.channels % bits.WORD
        return not self.words[:, ~inside].any() and not (used and (self.words[..., -1] >> np.uint64(used)).any())

    @property
    def shape(self) -> Shape:
        """Of an image, without its padding."""
        return Shape(*self.size, self.channels)


def packed_words(packed: PackedImages, channels: int, padding: int) -> NDArray[np.uint64]:
    """The words of images for a layer of so many channels and that padding. ValueError if they are no such images."""
    if not isinstance(packed, PackedImages):
        raise ValueError(f"packed must be PackedImages, as `pack` makes them, not {array_kind(packed)}")
    if (packed.channels, packed.padding) != (channels, padding):
        raise ValueError(
            f"packed images must have {channels} channels and padding {padding}, not {packed.channels} and "
            f"{packed.padding}"
        )
    if packed.words.shape[3:] != (bits.word_count(channels),):  # reshaped in place since they were checked
        raise ValueError(f"packed words of {channels} channels must be {bits.word_count(channels)} a pixel")
    if not packed.words.flags.c_contiguous:
        raise ValueError("packed words must be contiguous")
    if not packed.is_clean():
        raise ValueError("packed words must be zero in the padding and beyond the last channel")
    return packed.words
