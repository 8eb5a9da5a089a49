"""The packing convention, quoted."""

import numpy as np
import pytest

from xnornet.engine import bits


def test_a_bit_is_1_where_the_sign_is_plus_1_and_channel_0_is_the_lowest():
    x = np.full(70, -1, np.float32)
    x[[0, 3, 64]] = 1
    assert bits.pack_signs(x).tolist() == [0b1001, 0b1]


def test_sign_of_both_zeros_is_plus_1():
    assert bits.pack_signs(np.array([0.0, -0.0, -1e-45, 1e-45], np.float32)).tolist() == [0b1011]


@pytest.mark.parametrize("channels", [1, 7, 63, 64, 65, 128, 200])
def test_dot_is_n_minus_2_popcount_of_xor_with_tails_that_cancel(channels):
    rng = np.random.default_rng(channels)
    a, w = rng.standard_normal((2, channels))
    dot = int(np.where(a >= 0, 1, -1) @ np.where(w >= 0, 1, -1))
    different = np.bitwise_count(bits.pack_signs(a) ^ bits.pack_signs(w)).sum()
    assert channels - 2 * int(different) == dot


def test_unpack_inverts_pack():
    truths = np.random.default_rng(0).random((3, 5, 77)) < 0.5
    assert np.array_equal(bits.unpack_bits(bits.pack_bits(truths), 77), truths)


@pytest.mark.parametrize("at_a_time", [1, 200, 1 << 20])
def test_rows_become_words_block_by_block(at_a_time, monkeypatch):
    monkeypatch.setattr(bits, "UNPACKED", at_a_time)
    truths = np.random.default_rng(0).random((7, 2, 3, 21)) < 0.5
    assert np.array_equal(bits.unpack_rows(bits.pack_rows(truths), (2, 3, 21)), bits.pack_bits(truths))
