"""The maths of binarization against closed forms, autograd and finite differences."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from xnornet.nn import scaled_sign, sign_ste, update_binary_grad_weight
from xnornet.nn.binarize import alpha, centre_, clamp_, sign

SHAPES = [(50, 20, 5, 5), (500, 800), (4, 1, 1, 1), (3, 7, 2, 3)]


def latent(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Weights on both sides of +-1, so that the estimator's mask matters."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype) * 0.8


def upstream(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=dtype)


def grad_of(weight: Tensor, grad: Tensor, gradient: str) -> Tensor:
    weight = weight.clone().requires_grad_()
    scaled_sign(weight, gradient).backward(grad)  # type: ignore[arg-type]
    assert weight.grad is not None
    return weight.grad


def literal_corrected(weight: Tensor, grad: Tensor) -> Tensor:
    """The formula of the corrected gradient, written out weight by weight."""
    result = torch.zeros_like(weight)
    for o in range(len(weight)):
        w, g = weight[o].flatten(), grad[o].flatten()
        n = w.numel()
        s = torch.tensor([1.0 if v >= 0 else -1.0 for v in w.tolist()], dtype=w.dtype)
        mask = torch.tensor([1.0 if abs(v) <= 1 else 0.0 for v in w.tolist()], dtype=w.dtype)
        a = w.abs().sum() / n
        result[o] = (s * (g * s).sum() / n + a * g * mask).view_as(weight[o])
    return result


def test_sign_of_zero_is_plus_one() -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 3.0, -torch.inf, torch.inf, 1e-45, -1e-45])
    assert sign_ste(x).tolist() == [-1, 1, 1, 1, -1, 1, 1, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_straight_through_passes_up_to_one_inclusive(dtype: torch.dtype) -> None:
    beyond = 1 + torch.finfo(dtype).eps
    x = torch.tensor([-beyond, -1, -0.5, 0, 0.5, 1, beyond], dtype=dtype, requires_grad=True)
    sign_ste(x).backward(torch.arange(1, 8, dtype=dtype))
    assert x.grad is not None and x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_has_the_same_values_and_gradients(dtype: torch.dtype) -> None:
    """torch.compile up to 2.11 gives a sign of our own no gradient at all, and says nothing."""
    beyond = 1 + torch.finfo(dtype).eps
    edges = torch.tensor([-beyond, -1, -0.0, 0, 1, beyond, torch.inf], dtype=dtype)

    def outcome(function: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        x = torch.cat([edges, upstream((93,), dtype)]).view(1, 100).requires_grad_()
        w = latent((20, 100), dtype).requires_grad_()
        y = function(x, w)
        y.backward(upstream((1, 20), dtype))
        assert x.grad is not None and w.grad is not None
        return y.detach(), x.grad, w.grad

    def layer(x: Tensor, w: Tensor) -> Tensor:
        return sign_ste(x) @ scaled_sign(w).T

    # aot_eager: all of torch.compile but the generated code, which would need a C++ compiler.
    for plain, compiled in zip(outcome(layer), outcome(torch.compile(layer, backend="aot_eager")), strict=True):
        torch.testing.assert_close(plain, compiled)


def test_compiled_it_writes_into_no_tensor_given() -> None:
    """torch.compile up to 2.11 ends a graph at each `out` that is channels-last: a training took four times as long."""
    graphs: list[GraphModule] = []

    def keep(graph: GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert torch.equal(torch.compile(sign, backend=keep)(x), sign(x))
    (graph,) = graphs
    assert not any("out" in node.kwargs for node in graph.graph.nodes)


@pytest.mark.parametrize("shape", SHAPES)
def test_scaled_sign_is_alpha_times_sign(shape: tuple[int, ...]) -> None:
    weight = latent(shape)
    for o, row in enumerate(weight):
        mean = row.abs().sum() / row.numel()
        torch.testing.assert_close(scaled_sign(weight)[o], torch.where(row >= 0, mean, -mean))


@pytest.mark.parametrize("shape", [(3, 7, 2, 3), (5, 11), (2, 1, 1, 1)])
def test_corrected_gradient_is_the_formula(shape: tuple[int, ...]) -> None:
    weight, grad = latent(shape, torch.float64), upstream(shape, torch.float64)
    torch.testing.assert_close(update_binary_grad_weight(weight, grad), literal_corrected(weight, grad))


@pytest.mark.parametrize("shape", SHAPES)
def test_corrected_gradient_is_autograd_through_alpha_and_sign(shape: tuple[int, ...]) -> None:
    grad = upstream(shape)
    weight = latent(shape).requires_grad_()
    (weight.abs().mean(dim=tuple(range(1, len(shape))), keepdim=True) * sign_ste(weight)).backward(grad)
    assert weight.grad is not None
    torch.testing.assert_close(grad_of(latent(shape), grad, "corrected"), weight.grad, rtol=0, atol=1e-6)
    torch.testing.assert_close(update_binary_grad_weight(latent(shape), grad), weight.grad, rtol=0, atol=1e-6)


def finite_difference_of_alpha(weight: Tensor, grad: Tensor) -> Tensor:
    """d/dW_i of sum_j dC/dW~_j alpha sign(W_j), signs frozen: central differences of the alpha term, float64."""
    signs, step = sign(weight), 1e-6
    result = torch.zeros_like(weight)
    for i in range(weight.numel()):
        ends = []
        for direction in (step, -step):
            moved = weight.clone()
            moved.view(-1)[i] += direction
            ends.append((grad * alpha(moved) * signs).sum())
        result.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
    return result


def alpha_term(weight: Tensor, grad: Tensor, gradient: str) -> Tensor:
    """What a gradient says beyond the straight-through term alpha dC/dW~ 1[|W| <= 1]."""
    return grad_of(weight, grad, gradient) - grad_of(weight, grad, "detached")


def test_alpha_term_is_its_finite_difference_and_the_papers_is_not() -> None:
    weight, grad = latent((3, 4, 3, 3), torch.float64), upstream((3, 4, 3, 3), torch.float64)
    truth = finite_difference_of_alpha(weight, grad)
    torch.testing.assert_close(alpha_term(weight, grad, "corrected"), truth, rtol=1e-6, atol=1e-8)
    paper = alpha_term(weight, grad, "paper")
    torch.testing.assert_close(paper, grad / 36)  # (1/n) dC/dW~_i: as printed
    assert (paper - truth).norm() > 0.5 * truth.norm()


@pytest.mark.parametrize("shape", [(50, 20, 5, 5), (500, 800)])
def test_paper_and_corrected_point_apart(shape: tuple[int, ...]) -> None:
    corrected, paper = (grad_of(latent(shape) * 0.1, upstream(shape), g) for g in ("corrected", "paper"))
    assert torch.nn.functional.cosine_similarity(corrected.flatten(), paper.flatten(), dim=0) < 0.99


@pytest.mark.parametrize(("shape", "inputs", "products"), [((50, 20, 5, 5), 20, 500), ((500, 800), 800, 800)])
def test_the_reference_factor(shape: tuple[int, ...], inputs: int, products: int) -> None:
    """(1 - 1/c) n times the corrected gradient, c input channels, n weights of an output channel."""
    corrected, reference = (grad_of(latent(shape), upstream(shape), g) for g in ("corrected", "reference"))
    torch.testing.assert_close(reference, (1 - 1 / inputs) * products * corrected)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="unknown gradient 'exact': choose from corrected, paper, detached"):
        scaled_sign(latent((2, 3)), "exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        update_binary_grad_weight(latent((2, 3)), upstream((3, 2)))


def test_centre_and_clamp() -> None:
    weight = latent((4, 5, 3, 3)) * 3
    centred = weight.clone()
    centre_(centred)
    torch.testing.assert_close(centred.mean(dim=1), torch.zeros(4, 3, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(centred - weight, (centred - weight)[:, :1].expand_as(weight))  # one shift a tap
    clamp_(weight)
    assert weight.abs().max() == 1
    alone = latent((4, 1, 3, 3))
    centre_(of_one_channel := alone.clone())
    assert torch.equal(of_one_channel, alone)  # its mean is itself: nothing would be left
