"""Where the weights of each output channel lie in the panels."""

import numpy as np
import pytest

from xnornet.engine import bits, panels, weights
from xnornet.engine.counter import KIND, LOOKUP, LOOKUP_TABLE


def packed(channels: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth values (channels, depth), and the same as words."""
    truths = np.random.default_rng(channels).random((channels, depth)) < 0.5
    return truths, bits.pack_bits(truths)


@pytest.mark.parametrize("channels", [1, 8, 13, 16])
def test_words_of_8_channels_lie_side_by_side(channels):
    _, rows = packed(channels, 6 * 64)
    made = panels.side_by_side(rows, lanes=8)
    assert made.ctypes.data % 64 == 0
    assert made.shape == (-(-channels // 8), 6, 8)
    for channel in range(channels):
        assert np.array_equal(made[channel // 8, :, channel % 8], rows[channel])
    if channels % 8:
        assert not made[-1, :, channels % 8 :].any()


@pytest.mark.parametrize("channels", [1, 16, 17, 32, 50, 64, 70])
@pytest.mark.parametrize("depth", [3, 8, 20, 64, 100])
def test_nibbles_of_32_channels_lie_side_by_side(channels, depth):
    """The low nibbles of a byte, then the high ones; of either the first 16 channels in even bytes."""
    truths, rows = packed(channels, depth)
    size, count = -(-depth // 8), -(-channels // 32)
    made = panels._nibbles(rows, np.array([min(size, 8), size - 8][: 1 + (size > 8)]), lanes=32)
    assert made.ctypes.data % 64 == 0
    assert made.shape == (count, size, 64)
    expected = np.zeros_like(made)
    truths = np.pad(truths, ((0, 0), (0, 8 * size - depth))).reshape(channels, size, 2, 4)
    for channel, byte, half in np.ndindex(channels, size, 2):
        panel, part, lane = channel // 32, channel % 32 // 16, channel % 16
        expected[panel, byte, 32 * half + 2 * lane + part] = sum(
            int(truth) << bit for bit, truth in enumerate(truths[channel, byte, half])
        )
    assert np.array_equal(made, expected)


@pytest.mark.skipif(LOOKUP, reason="this CPU looks up")
@pytest.mark.parametrize("channels", [1, 16, 20])
@pytest.mark.parametrize("depth", [3, 32, 33, 64, 100])
def test_what_a_vector_counts_of_each_channel_lies_side_by_side(channels, depth, monkeypatch):
    """Of each of three pixels as many bits as a lane has, and none of the empty rest of its last word."""
    monkeypatch.setattr(panels, "GROUPS", ())  # for these see test_running
    truths, _ = packed(channels, 3 * depth)
    width, lanes = KIND.element.width, KIND.count
    taps = -(-depth // width)
    made = panels.in_panels(bits.pack_bits(truths.reshape(channels, 3, depth)), depth)
    assert made.shape == (-(-channels // lanes), 3 * taps, 64)
    lane_of = made.view(f"u{width // 8}")
    truths = np.pad(truths.reshape(channels, 3, depth), ((0, 0), (0, 0), (0, taps * width - depth)))
    for channel, pixel, tap in np.ndindex(channels, 3, taps):
        wanted = sum(int(truth) << bit for bit, truth in enumerate(truths[channel, pixel, tap * width :][:width]))
        assert lane_of[channel // lanes, pixel * taps + tap, channel % lanes] == wanted


@pytest.mark.parametrize("depth", [1, 8, 9, 63, 64, 65, 128, 200])
def test_taps_have_vectors_for_all_channels(depth):
    sizes = panels.tap_sizes(depth)
    assert sizes.tolist() == (
        [-(-min(64, depth - at) // 8) for at in range(0, depth, 64)]
        if LOOKUP
        else [panels.group_size(depth)] * (panels.vector_count(depth) // panels.group_size(depth))
    )
    assert sizes.sum() == panels.vector_count(depth)


@pytest.mark.parametrize("depth", [20, 64, 100, 1024])
def test_the_bytes_of_panels_are_those_that_are_made(depth):
    made = weights.BinaryWeights.of(np.ones((40, 3, 3, depth), np.float32))
    tables = weights.panel_bytes(40, (3, 3), depth) - made.panels.nbytes
    assert made.folded or tables == weights.TABLE_BYTES * len(made.tap_sizes)


def test_the_table_has_the_popcounts_of_two_pixels():
    for first, second, weight in np.ndindex(16, 16, 16):
        assert LOOKUP_TABLE[16 * second + first, weight] == (
            (first ^ weight).bit_count() + 16 * (second ^ weight).bit_count()
        )
