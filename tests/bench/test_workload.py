import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xnornet.bench.workload import (
    LAYERS,
    Contestant,
    Layer,
    Problem,
    SkippedError,
    WrongError,
    check,
    convolve,
    line_up,
)

SHAPES = [
    Layer(3, 5, size=7),
    Layer(1, 1, kernel=1, size=1, padding=0),
    Layer(20, 50, kernel=5, size=12, padding=0, batch=3),
    Layer(8, 4, kernel=2, size=6, padding=1, stride=2, batch=2),
    Layer.dense(30, 7, batch=4),
]


@pytest.mark.parametrize("layer", SHAPES, ids=repr)
def test_reference_is_the_sum_of_products(layer: Layer) -> None:
    problem = Problem(layer)
    rng = np.random.default_rng(1)
    p, s, k = layer.padding, layer.stride, layer.kernel
    padded = np.pad(problem.x.astype(np.float64), ((0, 0), (0, 0), (p, p), (p, p)))
    for _ in range(20):
        n, o = rng.integers(layer.batch), rng.integers(layer.out_channels)
        i, j = rng.integers(layer.out_size, size=2)
        window = padded[n, :, i * s : i * s + k, j * s : j * s + k]
        assert problem.float_result[n, i, j, o] == pytest.approx((window * problem.weight[o]).sum(), abs=1e-4)
        signs = np.where(window > 0, 1, np.where(window < 0, -1, 0))  # 0 is padding here
        count = (signs * np.where(problem.weight[o] >= 0, 1, -1)).sum()
        assert problem.binary_result[n, i, j, o] == pytest.approx(count * np.abs(problem.weight[o]).mean(), rel=1e-6)


@pytest.mark.parametrize("layer", SHAPES, ids=repr)
def test_reference_agrees_with_torch(layer: Layer) -> None:
    problem = Problem(layer)
    wanted = F.conv2d(
        torch.from_numpy(problem.x), torch.from_numpy(problem.weight), stride=layer.stride, padding=layer.padding
    )
    np.testing.assert_allclose(convolve(problem.x, problem.weight, layer), wanted.permute(0, 2, 3, 1), atol=1e-4)


def test_data_are_reproducible() -> None:
    one, two, other = Problem(SHAPES[0]), Problem(SHAPES[0]), Problem(SHAPES[0], seed=1)
    assert np.array_equal(one.x, two.x)
    assert not np.array_equal(one.x, other.x)


def test_the_paper_s_layer() -> None:
    layer = LAYERS["256@14"]
    assert (layer.out_size, layer.macs) == (14, 256 * 256 * 9 * 14 * 14)
    assert LAYERS["lenet-conv"].out_size == 8
    assert LAYERS["lenet-linear"].macs == LAYERS["lenet-linear"].macs_inside == 64 * 800 * 500


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS["256@14"],
        LAYERS["512@7"],
        Layer(3, 2, kernel=5, size=4, padding=6, stride=2, batch=2),
        Layer(3, 2, padding=0),
    ],
)
def test_products_with_the_image_are_counted(layer: Layer) -> None:
    """All weights and pixels 1: the sum of the results is the number of products that are not with padding."""
    ones = np.ones((layer.batch, layer.in_channels, layer.size, layer.size), np.float32)
    weights = np.ones((layer.out_channels, layer.in_channels, layer.kernel, layer.kernel), np.float32)
    assert convolve(ones, weights, layer).sum(dtype=np.float64) == layer.macs_inside
    assert layer.macs_inside < layer.macs or not layer.padding


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"batch": -1}, "batch must be at least 1, not -1"),
        ({"padding": -1}, "padding must not be negative, not -1"),
        ({"kernel": 17}, r"kernel 17 is larger than the padded image, 14 \+ 2 x 1 pixels"),
    ],
)
def test_impossible_layers(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layer(**{"in_channels": 8, "out_channels": 8, **arguments})


def _contestant(y: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-3) -> Contestant:
    return Contestant(lambda: y, lambda y: y, lambda: wanted, tolerance)


def test_check_refuses_what_is_wrong() -> None:
    wanted = np.ones((1, 2, 2, 3), np.float32)
    check(_contestant(wanted + 1e-4, wanted))
    for wrong in (wanted + 1e-2, -wanted, wanted * np.nan):
        with pytest.raises(WrongError, match="relative error"):
            check(_contestant(wrong, wanted))
    with pytest.raises(WrongError, match="shape"):
        check(_contestant(wanted[..., :1], wanted))


def test_line_up_names_those_left_out() -> None:
    wanted = np.ones((1, 1, 1, 1), np.float32)

    def missing() -> Contestant:
        raise SkippedError("it is not installed")

    builders = {"good": lambda: _contestant(wanted, wanted), "wrong": lambda: _contestant(-wanted, wanted)}
    ready, skipped = line_up({**builders, "missing": missing}, optional={"wrong"})
    assert list(ready) == ["good"]
    assert skipped == {"wrong": "wrong: relative error 2 is above 0.001", "missing": "it is not installed"}
    with pytest.raises(WrongError, match="wrong: relative error 2 is above"):
        line_up(builders)


def test_only_optional_contestants_may_fail() -> None:
    def broken() -> Contestant:
        raise RuntimeError("no kernel\nfor this")

    ready, skipped = line_up({"peer": broken}, optional={"peer"})
    assert not ready and skipped == {"peer": "failed: RuntimeError: no kernel for this"}
    with pytest.raises(RuntimeError, match="no kernel"):
        line_up({"ours": broken}, optional={"peer"})
