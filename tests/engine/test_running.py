"""Words that are counted together, as running xors: on AMD's cores with AVX-512."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine import networks, reference
from tests.engine.test_layers import EXAMPLES
from xnornet.engine import PackedConv2d, counter, panels, program
from xnornet.engine.bits import aligned
from xnornet.engine.counter import GROUPS, KIND, LOOKUP
from xnornet.engine.op import OP, Kind
from xnornet.engine.running import copy_running_xors


def as_defined(words: np.ndarray) -> list[int]:
    """Of one group: at an even place the xor of all words up to it, at an odd one the word."""
    values = [int(word) for word in words]
    return [
        values[place] if place % 2 else int(np.bitwise_xor.reduce(words[: place + 1])) for place in range(len(values))
    ]


def random_words(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << 32, shape, np.uint32)


def test_two_words_and_the_parity_tell_the_majority():
    for a, b, c in itertools.product((0, 1), repeat=3):
        wanted = (a + b + c) // 2
        assert counter.MAJORITY >> (4 * a + 2 * b + (a ^ b ^ c)) & 1 == wanted


@pytest.mark.parametrize("group", [4, 8])
def test_running_xors_of_the_weights(group):
    words = random_words(3, 5 * group)
    made = panels.running_xors(words, group)
    for row, taps in zip(made, words, strict=True):
        assert row.tolist() == [
            word for first in range(0, len(taps), group) for word in as_defined(taps[first:][:group])
        ]
    assert np.array_equal(panels.running_xors(words, 1), words)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("group", [4, 8])
def test_running_xors_of_images(group, in_place):
    """Two of them, made in three parts, with something between one image and the next that stays as it was."""
    words, gap = random_words(2, 11 * group + 2), 11 * group
    source = aligned(words.shape, np.uint32)
    source[:] = words
    target = source if in_place else aligned(words.shape, np.uint32)
    between = target[:, gap:].copy()
    (op,) = np.zeros(1, OP)
    op["group"], op["units"] = group, 3
    op["source_bytes"] = op["target_bytes"] = words[0].nbytes
    for unit in range(3):
        copy_running_xors(op, source.ctypes.data, target.ctypes.data, 2, unit, unit + 1)
    assert np.array_equal(target[:, :gap], panels.running_xors(words[:, :gap], group))
    assert np.array_equal(target[:, gap:], between)
    assert in_place or np.array_equal(source, words)


@pytest.mark.parametrize(
    ("depth", "group"),
    [(64, 1), (96, 1), (97, 4), (128, 4), (224, 1), (225, 8), (256, 8), (257, 1), (384, 4), (512, 8)],
)
def test_a_pixel_s_words_are_counted_together_where_they_make_groups(depth, group):
    group = group if group in GROUPS else 1
    assert panels.group_size(depth) == group
    if not LOOKUP:
        assert panels.tap_sizes(depth).tolist() == [group] * (panels.vector_count(depth) // group)


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(
    depth=st.sampled_from([97, 128, 225, 256, 257, 384, 512]),
    channels=st.sampled_from([1, 15, 16, 17, 33]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    count=st.integers(1, 3),
    threads=st.integers(1, 2),
)
def test_counts_and_bits_of_many_channels(depth, channels, kernel, stride, padding, size, count, threads):
    rng = np.random.default_rng(depth + channels)
    x = rng.standard_normal((count, *size, depth)).astype(np.float32)
    weight = rng.standard_normal((channels, depth, kernel, kernel)).astype(np.float32)
    layer = PackedConv2d(weight, stride=stride, padding=padding, scale=np.ones(channels))
    wanted = reference.binary_conv(x, weight, stride, padding)
    assert np.array_equal(layer(x, threads=threads), wanted)
    packed = layer.pack(x)
    before = packed.words.copy()
    assert np.array_equal(layer.run_packed(packed, threads), wanted)
    threshold = rng.integers(-20, 20, channels)
    assert np.array_equal(layer.then_sign(threshold)(packed, threads).signs() > 0, wanted >= threshold)
    assert np.array_equal(packed.words, before)  # the caller's words are his own


@pytest.mark.parametrize(("depth", "kernel", "channels", "group"), [(33, 3, 40, 4), (20, 5, 100, 4), (33, 7, 40, 8)])
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_of_words_that_the_columns_of_a_kernel_share(depth, kernel, channels, group, threads, monkeypatch):
    """Folded images become running xors where they are."""
    monkeypatch.setattr(program, "LEAST_WORK", 0)  # so that threads share it
    rng = np.random.default_rng(depth)
    x = rng.standard_normal((1, 12, 11, depth)).astype(np.float32)
    weight = rng.standard_normal((channels, depth, kernel, kernel)).astype(np.float32)
    layer = PackedConv2d(weight, padding=1, scale=np.ones(channels))
    if KIND.element.width == 32:
        assert layer._weights.folded
        assert layer._weights.group == (group if group in GROUPS else 1)
    wanted = reference.binary_conv(x, weight, 1, 1)
    for _ in range(3):  # a call finds what the one before has left
        assert np.array_equal(layer(x, threads=threads), wanted)


@pytest.mark.skipif(not GROUPS, reason="this CPU counts word by word")
def test_convolutions_share_the_memory_for_their_running_xors():
    made = networks.build(networks.MANY_CHANNELS)._program
    copies = [step["target"] for step in made.steps if step["kind"] == Kind.RUNNING_XORS]
    assert len(copies) == 3, "of convolutions of 128, 256 and 97 channels"
    assert set(copies) == {made.scratch}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("features", [128, 256, 1 << 14])
def test_counts_at_their_largest(features, sign):
    """All bits of a window differ, or none does."""
    weight = np.full((17, features, 1, 1), sign, np.float32)
    y = PackedConv2d(weight, scale=np.ones(17))(np.ones((1, 3, 5, features), np.float32))
    assert np.array_equal(y, np.full((1, 3, 5, 17), sign * features, np.float32))
