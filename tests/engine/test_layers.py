"""The packed layers against integer arithmetic, bit for bit."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.engine import reference
from tests.engine.layers import given_layer, images
from xnornet.engine import PackedChain, PackedConv2d, PackedImages, PackedLinear
from xnornet.engine.geometry import Shape, Window, int32
from xnornet.engine.program import Program

# Runs for lowered targets ask for fewer: each compiles everything anew.
EXAMPLES = int(os.environ.get("XNORNET_TEST_EXAMPLES", "150"))
AROUND = [1, 2, 3, 7, 8, 9, 16, 17, 20, 33, 63, 64, 65, 100, 127, 128, 129]


@st.composite
def problems(draw):
    """(x, weight, stride, padding) of any shape that fits."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, max(height, width)))
    image = [draw(st.integers(max(1, kernel - 2 * padding), kernel + 7)) for kernel in (height, width)]
    depth, channels, images = draw(st.sampled_from(AROUND)), draw(st.sampled_from(AROUND)), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.standard_normal((images, *image, depth)).astype(np.float32)
    weight = rng.standard_normal((channels, depth, height, width)).astype(np.float32)
    return x, weight, stride, padding


@settings(max_examples=EXAMPLES, deadline=None)
@given(problems(), st.integers(1, 3))
def test_counts_are_those_of_integer_arithmetic(problem, threads):
    x, weight, stride, padding = problem
    layer = PackedConv2d(weight, stride=stride, padding=padding, scale=np.ones(len(weight)))
    wanted = reference.binary_conv(x, weight, stride, padding)
    assert np.array_equal(layer(x, threads=threads), wanted)
    assert np.array_equal(layer.run_packed(layer.pack(x), threads=threads), wanted)


@settings(max_examples=EXAMPLES, deadline=None)
@given(problems(), st.integers(0, 2), st.integers(0, 2**32))
def test_bits_are_thresholds_on_integer_counts(problem, next_padding, seed):
    x, weight, stride, padding = problem
    counts = reference.binary_conv(x, weight, stride, padding)
    rng = np.random.default_rng(seed)
    threshold = rng.integers(-weight[0].size - 1, weight[0].size + 2, len(weight))
    flip = rng.random(len(weight)) < 0.5
    layer = PackedConv2d(weight, stride=stride, padding=padding)
    forward = layer.then_sign(threshold, flip, padding=next_padding)
    packed = forward(layer.pack(x))
    wanted = (counts >= threshold) ^ flip
    assert np.array_equal(packed.signs() > 0, wanted)
    # Nothing but the channels' bits is set: neither padding nor the tail of the last word.
    assert np.bitwise_count(packed.words).sum() == wanted.sum()
    again = PackedImages(np.zeros_like(packed.words), packed.channels, packed.padding)
    assert forward(layer.pack(x), 2, again) is again
    assert np.array_equal(again.words, packed.words)


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(st.lists(st.sampled_from(AROUND), min_size=2, max_size=4), st.integers(0, 3), st.integers(1, 3), st.data())
def test_a_chain_gives_what_its_layers_give(channels, count, threads, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    size, layers, fused = data.draw(st.integers(4, 9)), [], []
    for depth, outputs in pairwise(channels):
        kernel, padding = data.draw(st.sampled_from([1, 3])), data.draw(st.integers(0, 1))
        weight = rng.standard_normal((outputs, depth, kernel, kernel)).astype(np.float32)
        layers.append(PackedConv2d(weight, padding=padding, stride=data.draw(st.integers(1, 2))))
    for layer, padding in zip(layers, [*(layer.window.padding for layer in layers[1:]), 2], strict=True):
        limits, flip = rng.integers(-9, 9, layer.out_channels), rng.random(layer.out_channels) < 0.3
        fused.append(layer.then_sign(limits, flip, padding=padding))
    first = layers[0].pack(images(count, size, size, channels[0]))
    try:
        wanted = reduce(lambda packed, layer: layer(packed), fused, first)
    except ValueError:  # the image became smaller than a kernel
        with pytest.raises(ValueError, match="smaller than"):
            reduce(PackedChain.then, fused)(first)
        return
    chain = reduce(PackedChain.then, fused)
    for _ in range(2):  # what a call leaves behind is in nobody's way
        made = chain(first, threads=threads)
        assert np.array_equal(made.words, wanted.words)
    assert (made.channels, made.padding) == (wanted.channels, wanted.padding) == (channels[-1], 2)


def test_a_chain_s_largest_image_decides_how_many_are_one_pass():
    """A pass of 64 images of one pixel, padded by 400, would need 1.6 GB for what lies between the layers."""
    small, large = PackedConv2d(images(8, 8, 1, 1)), PackedConv2d(images(8, 8, 3, 3), padding=400)
    zeros = np.zeros(8, int)
    chain = small.then_sign(zeros, padding=400).then(large.then_sign(zeros))
    chain(small.pack(images(1, 1, 1, 8)))
    small.then_sign(zeros)(small.pack(images(1, 1, 1, 8)))
    (program,) = chain._programs._made.values()
    assert program.batch == 1


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(AROUND), st.sampled_from(AROUND), st.sampled_from([0, 1, 7, 8, 9, 64, 130]), st.integers(1, 3))
@example(800, 500, 64, 1)
def test_dense_counts_are_those_of_integer_arithmetic(features, channels, rows, threads):
    x, weight = images(rows, features), images(channels, features, seed=2)
    layer = PackedLinear(weight, scale=np.ones(channels))
    wanted = reference.signs(x) @ reference.signs(weight).T
    assert np.array_equal(layer(x, threads=threads), wanted)
    assert np.array_equal(layer.run_packed(layer.pack(x), threads), wanted)


@pytest.mark.parametrize(
    ("depth", "kernel", "padding"),
    [(1, 20, 0), (1, 20, 20), (3, 20, 7), (70, 20, 3), (33, 7, 7), (257, 20, 1), (257, 20, 3)],
)
def test_large_kernels(depth, kernel, padding):
    weight, layer = given_layer(9, depth, kernel, padding=padding, scale=np.ones(9))
    x = images(2, 22, 21, depth)
    assert np.array_equal(layer(x), reference.binary_conv(x, weight, 1, padding))


@pytest.mark.parametrize("features", [8 * 31, 8 * 248, 8 * 8184, 8 * 8191, 8 * 8193 + 3, 200_000])
@pytest.mark.parametrize("channels", [20, 40], ids=["one panel", "two panels"])
def test_sums_at_their_largest(features, channels):
    """All signs differ, or none: what a byte, then 16 bits, must hold where sums are looked up; and the last limits."""
    weight = np.where(np.arange(channels) % 2, np.float32(-1), np.float32(1))[:, None].repeat(features, axis=1)
    layer, x = PackedLinear(weight, scale=np.ones(channels)), np.ones((7, features), np.float32)
    counts = np.where(np.arange(channels) % 2, -features, features)
    assert np.array_equal(layer(x), np.broadcast_to(counts, (7, channels)).astype(np.float32))
    thresholds = np.array([-(2**31), 0, 2**31 - 1, features, features + 1, -features, 1 - features, 5])
    for flip in (np.zeros(channels, bool), np.ones(channels, bool), np.arange(channels) % 3 == 0):
        signs = layer.then_sign(np.resize(thresholds, channels), flip)(layer.pack(x)).signs()
        wanted = np.where((counts >= np.resize(thresholds, channels)) != flip, 1, -1)
        assert np.array_equal(signs.reshape(7, channels), np.broadcast_to(wanted, (7, channels)))


def test_folding_columns_is_used_and_changes_nothing():
    """With few channels and many filters the columns of a kernel share words: both ways are under test above."""
    assert given_layer(129, 9, 5)[1]._weights.folded
    assert not given_layer(8, 20, 2)[1]._weights.folded
    assert not given_layer(50, 64, 5)[1]._weights.folded


def test_padding_adds_0_not_minus_1():
    """Every tap of a corner that lies on padding must count 0; as a sign it would count -1."""
    weight = np.ones((1, 1, 3, 3), np.float32)
    y = PackedConv2d(weight, padding=1)(np.ones((1, 3, 3, 1), np.float32))
    assert y[0, :, :, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


@pytest.mark.parametrize("channels", [5, 8, 16, 50])
def test_scale_and_bias_are_two_float32_roundings(channels):
    weight, layer = given_layer(channels, 33, bias=images(channels))
    x = images(2, 6, 5, 33)
    counts = reference.binary_conv(x, weight).astype(np.float32)
    alpha = np.abs(weight.astype(np.float64)).mean(axis=(1, 2, 3)).astype(np.float32)
    assert np.array_equal(layer.scale, alpha)
    assert np.array_equal(layer(x), counts * alpha + images(channels))


def test_input_scale_is_equation_11():
    for stride, padding in ((1, 0), (1, 1), (2, 1), (3, 2)):
        weight, layer = given_layer(stride=stride, padding=padding, bias=images(16, seed=3))
        x = images(3, 8, 7, 20)
        scale = reference.input_scale(x, 3, 3, stride, padding)
        wanted = reference.binary_conv(x, weight, stride, padding) * layer.scale.astype(np.float64) * scale + layer.bias
        assert np.allclose(layer(x, input_scale=True), wanted, rtol=1e-5, atol=1e-6)
        assert not np.allclose(layer(x), wanted, rtol=1e-2)
    x, weight = images(4, 30), images(6, 30, seed=2)
    dense = PackedLinear(weight)
    wanted = reference.signs(x) @ reference.signs(weight).T * dense.scale * np.abs(x).mean(axis=1, keepdims=True)
    assert np.allclose(dense(x, input_scale=True), wanted, rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 20, 64, 100])
def test_zeros_denormals_and_infinities_have_signs(depth):
    values = np.array([0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, 3e38, -3e38], np.float32)
    x = np.random.default_rng(0).choice(values, (2, 5, 5, depth))
    weight, layer = given_layer(8, depth, scale=np.ones(8))
    assert np.array_equal(layer(x), reference.binary_conv(x, weight))


@pytest.mark.parametrize("depth", [1, 15, 16, 17, 64, 81, 128])
def test_nan_is_an_error_wherever_it_is(depth):
    _, layer = given_layer(8, depth)
    for index in np.ndindex(1, 3, 3, depth):
        x = images(1, 3, 3, depth)
        x[index] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            layer(x)
        with pytest.raises(ValueError, match="NaN"):
            layer.pack(x)
    assert np.isfinite(layer(images(1, 3, 3, depth))).all()  # a layer that raised still works


def test_input_that_is_not_contiguous():
    _, layer = given_layer(padding=1)
    x = images(2, 20, 9, 8)
    for view in (x.transpose(0, 2, 3, 1), x[:, ::-1].transpose(0, 2, 3, 1), np.asfortranarray(x.transpose(0, 2, 3, 1))):
        assert np.array_equal(layer(view), layer(view.copy()))
    read_only = x.transpose(0, 2, 3, 1).copy()
    read_only.flags.writeable = False
    assert np.array_equal(layer(read_only), layer(read_only.copy()))


def test_more_image_sizes_than_are_kept():
    weight, layer = given_layer(4, 3, padding=1, scale=np.ones(4))
    for size in [*range(3, 25), 3, 4]:
        x = images(1, size, 4, 3)
        assert np.array_equal(layer(x), reference.binary_conv(x, weight, 1, 1))
    assert len(layer._programs._made) <= 16


def test_threads_give_the_same_bits():
    _, layer = given_layer(50, 70, padding=1)
    for shape in ((1, 9, 11, 70), (5, 9, 11, 70), (64, 3, 3, 70)):
        x = images(*shape)
        for threads in (2, 3, 8, 64, 100_000):
            assert np.array_equal(layer(x, threads=threads), layer(x))
            assert np.array_equal(layer.pack(x, threads).words, layer.pack(x).words)


def test_no_more_threads_than_cores_and_images(monkeypatch):
    jobs = []
    _, layer = given_layer(50, 70, padding=1)
    run = Program._run
    monkeypatch.setattr(Program, "_run", lambda program, *job: jobs.append(job[2]) or run(program, *job))
    for count, shares in ((3, [1, 1, 1]), (9, [2, 2, 2, 3])):  # CORES is 4 here
        jobs.clear()
        layer(images(count, 9, 11, 70), threads=10**9)
        assert sorted(jobs) == shares


def test_what_an_interrupted_call_leaves_running_holds_its_arrays(monkeypatch):
    _, layer = given_layer(50, 70, padding=1)
    held = []

    def interrupted(program, x, y, images, arrays=None):
        if arrays is None:
            raise KeyboardInterrupt
        held.append(arrays)

    x = images(4, 9, 11, 70)
    monkeypatch.setattr(Program, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        layer(x, threads=4)
    deadline = time.monotonic() + 10
    while len(held) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(held) == 3 and all(job[0] is x and job[1].shape == (4, 9, 11, 50) for job in held)


def test_copies_and_other_processes_have_memory_of_their_own(tmp_path):
    """Programs hold addresses: copied as they are, they would write into another layer's memory, or into nothing."""
    x = images(3, 9, 11, 70)
    given = given_layer(50, 70, padding=1)[1], PackedLinear(images(12, 9 * 11 * 70))
    inputs = x, x.reshape(3, -1)
    wanted = [layer(x) for layer, x in zip(given, inputs, strict=True)]
    signs = given[0].then_sign(np.zeros(50, int))
    packed = given[0].pack(x)
    for one in (copy.deepcopy(signs), pickle.loads(pickle.dumps(signs))):
        assert np.array_equal(one(packed).words, signs(packed).words)
    for layer, x, y in zip(copy.deepcopy(given), inputs, wanted, strict=True):
        assert not getattr(layer, "_conv", layer)._programs._made
        assert np.array_equal(layer(x), y)
    (tmp_path / "layers").write_bytes(pickle.dumps((given, inputs, wanted)))
    code = """
import pickle, sys
import numpy as np
for layer, x, y in zip(*pickle.load(open(sys.argv[1], "rb")), strict=True):
    assert np.array_equal(layer(x), y)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "layers")], check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("count", [1, 4])
def test_threads_after_a_fork(count):
    """The child has the parent's pool of threads and its helpers, but not the threads."""
    _, layer = given_layer(50, 70, padding=1)
    x = images(count, 9, 11, 70)
    wanted = layer(x, threads=2)
    child = os.fork()
    if not child:
        signal.alarm(30)
        os._exit(not np.array_equal(layer(x, threads=2), wanted))
    assert os.waitpid(child, 0)[1] == 0


def test_a_thread_that_outlives_the_main_one_may_share_a_batch():
    """Pools take no more work once the main thread has ended."""
    code = """
import threading
import numpy as np
from xnornet.engine import PackedConv2d
layer, x = PackedConv2d(np.ones((256, 256, 3, 3), np.float32), padding=1), np.ones((16, 28, 28, 256), np.float32)
def serve():
    threading.main_thread().join()
    print((layer(x, threads=2) == layer(x)).all())
threading.Thread(target=serve).start()
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True"], done.stderr


def test_padding_larger_than_a_small_image_is_passed_image_by_image():
    layer = PackedConv2d(np.ones((1, 1, 3, 3), np.float32), stride=3000, padding=1500)
    x = np.ones((1, 2, 2, 1), np.float32)
    assert layer(x).shape == (1, 1, 1, 1) and layer._new_program(Shape(2, 2, 1), (1, 1, 1)).batch == 1
    assert layer.then_sign([0])(layer.pack(x)).signs().shape == (1, 1, 1, 1)


def test_images_beyond_the_tables_are_refused():
    with pytest.raises(ValueError, match="2 GiB"):
        Window(3, 3, stride=4096).pixel_offsets((5, 5), 0, 8 * 131072, 8, 1)
    limit = np.iinfo(np.int32).max
    assert int32(np.array([limit])) == limit


def test_large_images_pass_one_by_one():
    _, layer = given_layer(16, 1, stride=400)
    assert layer._new_program(Shape(2000, 2000, 1), (5, 5, 1)).batch == 1
