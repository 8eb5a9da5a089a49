"""What the packed layers refuse, and what their messages name."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from tests.engine.layers import given_layer, images
from xnornet.engine import PackedChain, PackedConv2d, PackedImages, PackedLinear

GOOD = images(1, 4, 4, 20)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (GOOD.astype(np.float64), "float32.*float64"),
        (GOOD.tolist(), "float32.*list"),
        (GOOD[0], r"\(N, H, W, 20\).*\(4, 4, 20\)"),
        (GOOD[..., :19], r"20.*19"),
        (GOOD[:, :2], "2x4.*smaller than the kernel of 3x3"),
        (GOOD[:, :0], r"must have pixels.*\(1, 0, 4, 20\)"),
    ],
)
def test_wrong_input_is_named(x, words):
    with pytest.raises(ValueError, match=words):
        given_layer()[1](x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stride": 0}, "stride must be at least 1, not 0"),
        ({"padding": -1}, "padding must be at least 0"),
        ({"padding": 1.5}, "padding must be an integer"),
        ({"stride": 2**63}, "stride must be at most 8192, not 9223372036854775808"),
        ({"padding": 10**6}, "padding must be at most 8192"),
        ({"scale": np.ones(16) * 1j}, "scale must be real numbers: they are complex"),
        ({"scale": ["1"] * 16}, "scale must be real numbers: they are <U1"),
        ({"scale": [10**400] * 16}, "scale must be real numbers: int too large"),
        ({"scale": [1e300] * 16}, "scale must be finite"),
        ({"scale": np.ones(3)}, r"scale must have the shape \(16,\).*\(3,\)"),
        ({"bias": np.full(16, np.nan)}, "bias must be finite"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        given_layer(**options)


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "window", "scale", "bias"])
def test_what_programs_have_in_them_cannot_be_set(name):
    layer = given_layer()[1]
    with pytest.raises(AttributeError):
        setattr(layer, name, 1)


def test_words_reshaped_in_place_are_refused():
    layer = given_layer(16, 640)[1]
    packed = layer.pack(images(1, 4, 4, 640))
    packed.words.shape = (1, 10, 16, 1)
    with pytest.raises(ValueError, match="words of 640 channels must be 10 a pixel"):
        layer.run_packed(packed)


def test_a_chain_s_layers_must_fit():
    one, other = (given_layer(16, depth)[1].then_sign(np.zeros(16, int)) for depth in (20, 640))
    with pytest.raises(ValueError, match="16 channels and padding 0, not 640 and 0"):
        PackedChain([*one.fused, *other.fused])


def test_wrong_weights_are_named():
    weight = images(4, 3, 2, 2)
    for wrong, words in (
        (weight.astype(np.float64), "float32"),
        (weight[0], r"\(O, C, kh, kw\)"),
        (weight[:0], "empty"),
        (weight * np.inf, "finite"),
        (np.broadcast_to(np.float32(1), (1, 1 << 23, 1, 1)), "8388608 products.*exactly below"),
    ):
        with pytest.raises(ValueError, match=words):
            PackedConv2d(wrong)
    with pytest.raises(ValueError, match=r"\(O, F\)"):
        PackedLinear(weight)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        PackedConv2d(weight)(images(1, 2, 2, 3), threads=0)


def test_a_dense_layer_refuses_packed_images_that_are_no_rows():
    dense = PackedLinear(images(5, 20))
    with pytest.raises(ValueError, match="packed must hold rows, images of one pixel, not of 3x3"):
        dense.run_packed(PackedConv2d(images(5, 20, 1, 1)).pack(images(2, 3, 3, 20)))


def test_packed_images_of_another_layer_are_refused():
    _, layer = given_layer(padding=1)
    packed = layer.pack(GOOD)
    for wrong, message in (
        (PackedImages(packed.words, 21, 1), "must have 20 channels and padding 1, not 21 and 1"),
        (PackedImages(packed.words, 20, 0), "must have 20 channels and padding 1, not 20 and 0"),
        (PackedImages(packed.words[:, ::2], 20, 1), "must be contiguous"),
        (packed.words, r"must be PackedImages, as `pack` makes them, not uint64 \("),
        (None, "must be PackedImages, as `pack` makes them, not NoneType"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.run_packed(wrong)
        with pytest.raises(ValueError, match=message):
            layer.then_sign(np.zeros(16, int))(wrong)
    with pytest.raises(ValueError, match="packed must be PackedImages"):
        PackedLinear(images(5, 20)).run_packed(packed.words)
    for place in (np.s_[0, 0, 1, 0], np.s_[0, 1, 1, 0]):  # in the padding, and beyond the last of 20 channels
        dirty = packed.words.copy()
        dirty[place] |= np.uint64(1 << 20)
        with pytest.raises(ValueError, match="packed words must be zero in the padding and beyond the last channel"):
            layer.run_packed(PackedImages(dirty, 20, 1))
        with pytest.raises(ValueError, match="packed words must be zero in the padding and beyond the last channel"):
            layer.run_packed(replace(packed, words=dirty))
    forward = layer.then_sign(np.zeros(16, int))
    result = forward(packed)
    for words in (
        packed.words,
        np.repeat(result.words, 2, axis=2)[:, :, ::2],
        np.broadcast_to(result.words[:, :1], result.words.shape),
        np.full_like(result.words, 1 << 16),  # what is there stays there, beyond the last channel
    ):
        with pytest.raises(ValueError, match="out must be"):
            forward(packed, out=PackedImages(words, 16, 0))
    with pytest.raises(ValueError, match="out must be"):
        forward(packed, out=result.words)
    _, same = given_layer(20, 20, padding=1)
    with pytest.raises(ValueError, match="and not the input"):
        same.then_sign(np.zeros(20, int), padding=1)(packed, out=packed)
    for padding, made in ((0, "16 channels and padding 0"), (1, "16 channels and padding 1")):
        with pytest.raises(ValueError, match=f"must take what this one makes, {made}, not 20 and 1"):
            layer.then_sign(np.zeros(16, int), padding=padding).then(same.then_sign(np.zeros(20, int)))
    with pytest.raises(ValueError, match="what `then_sign` of a layer returns, not PackedConv2d"):
        forward.then(same)
    row = PackedLinear(images(4, 16)).then_sign(np.zeros(4, int))
    with pytest.raises(ValueError, match=r"a dense layer takes rows, images of one pixel, and was given some of 4x4"):
        forward.then(row)(packed)
    with pytest.raises(ValueError, match="threshold must be int32"):
        layer.then_sign(np.zeros(16))
    for flip in (np.ones(3, bool), np.full(16, np.nan), ["no"] * 16):
        with pytest.raises(ValueError, match=r"flip must be bool \(16,\), one a channel"):
            layer.then_sign(np.zeros(16, int), flip)


@pytest.mark.parametrize(
    ("words", "channels", "padding", "message"),
    [
        (np.zeros((2, 3, 3, 1), np.int64), 20, 0, r"words must be uint64 of 4 dimensions, not int64 \(2, 3, 3, 1\)"),
        (np.zeros((3, 3, 1), np.uint64), 20, 0, r"words must be uint64 of 4 dimensions, not uint64 \(3, 3, 1\)"),
        ([[[[0]]]], 20, 0, "words must be uint64 of 4 dimensions, not list"),
        (np.zeros((2, 3, 3, 1), np.uint64), 65, 0, "65 channels are 2 words, not 1"),
        (np.zeros((2, 3, 3, 1), np.uint64), 0, 0, "channels must be at least 1, not 0"),
        (np.zeros((2, 3, 3, 1), np.uint64), 20, -1, "padding must be at least 0, not -1"),
        (np.zeros((2, 5, 4, 1), np.uint64), 20, 2, "words of 5x4 pixels are nothing but padding 2"),
    ],
)
def test_words_that_are_no_images_are_refused(words, channels, padding, message):
    with pytest.raises(ValueError, match=message):
        PackedImages(words, channels, padding)


def test_what_programs_have_in_them_cannot_be_changed():
    _, conv = given_layer(bias=np.ones(16))
    given = conv, PackedLinear(images(5, 20), bias=np.ones(5))
    for layer in (*given, *copy.deepcopy(given), *pickle.loads(pickle.dumps(given))):
        for name in ("scale", "bias"):
            with pytest.raises(AttributeError):
                setattr(layer, name, np.zeros(5))
            with pytest.raises(ValueError, match="read-only"):
                getattr(layer, name)[0] = 0


def test_a_changed_threshold_changes_no_layer_that_was_given_it():
    _, layer = given_layer()
    threshold, flip = np.zeros(16, np.int32), np.zeros(16, bool)
    forward, packed = layer.then_sign(threshold, flip), layer.pack(GOOD)
    wanted = layer.then_sign(threshold, flip)(packed).words
    threshold[:], flip[:] = 100, True
    assert np.array_equal(forward(packed).words, wanted)


def test_what_is_no_number_is_named():
    for scale in ("a", [1, [2]], object()):
        with pytest.raises(ValueError, match="scale must be real numbers"):
            given_layer(scale=scale)


def test_sizes_of_numpys_types_do_not_overflow():
    made = PackedImages(np.zeros((1, 300, 300, 1), np.uint64), np.uint8(8), np.uint8(130))
    assert made.size == (40, 40)


def test_a_number_of_threads_is_not_taken_for_the_input_scale():
    with pytest.raises(ValueError, match="input_scale must be True or False, not 2"):
        given_layer()[1](GOOD, 2)
    with pytest.raises(ValueError, match="input_scale must be True or False, not 2"):
        PackedLinear(images(5, 20))(images(3, 20), 2)
