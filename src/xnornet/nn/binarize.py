"""The maths of XNOR-Net: sign with its straight-through estimator, the scale alpha, and the gradients of both.

Notation. W: the latent weights of a layer, one row W_o of n = c kh kw values per output channel o.
alpha_o = ||W_o||_1 / n; W~_o = alpha_o sign(W_o); C: the loss; 1[.]: 1 where the condition holds, else 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from xnornet.params import Gradient


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1: sign(0) = sign(-0.0) = +1, unlike torch.sign. Shape and dtype of x."""
    x = x.detach()
    if torch.compiler.is_compiling():  # torch.compile up to 2.11 ends a graph at an `out` that is channels-last
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    # Written as 2 [x >= 0] - 1 in place, in x's own dtype: a third of the time of torch.where.
    return torch.ge(x, 0, out=torch.empty_like(x)).mul_(2).sub_(1)


def ste_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Straight-through estimator: g 1[|x| <= 1], what passes back through sign (Courbariaux et al. 2016, eq. 4)."""
    # hardtanh's backward is this mask in one pass over memory.
    bound = _beyond_one(x)
    return torch.ops.aten.hardtanh_backward(grad, x, -bound, bound)


def _beyond_one(x: Tensor) -> float:
    """The next value after 1 in x's dtype: hardtanh's bounds are strict, the estimator's are not."""
    return 1 + torch.finfo(x.dtype).eps


class _SignSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return ste_backward(grad, x)


def sign_ste(x: Tensor) -> Tensor:
    """Sign of x, +1 at 0, whose gradient is that of the straight-through estimator.

    Shape and dtype of x. Forward: sign(x). Backward: g 1[|x| <= 1] (Rastegari et al. 2016, section 3.1).
    """
    if torch.compiler.is_compiling():
        # torch.compile up to 2.11 loses the gradient of a Function whose forward, traced, has none: a zero that has it.
        bound = _beyond_one(x)
        inside = F.hardtanh(x, -bound, bound)
        return sign(x) + (inside - inside.detach())
    return _SignSTE.apply(x)


def alpha(weight: Tensor) -> Tensor:
    """alpha_o = ||W_o||_1 / n, one scale per output channel (Rastegari et al. 2016, eq. 6).

    weight: (O, ...); returns (O, 1, ...), so that it multiplies the weight as it is.
    """
    return weight.abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True)


def update_binary_grad_weight(weight: Tensor, grad: Tensor) -> Tensor:
    """The corrected gradient of the latent weights, in closed form.

    dC/dW_i = (1/n) sign(W_i) sum_j [dC/dW~_j sign(W_j)] + alpha dC/dW~_i 1[|W_i| <= 1], the sum over the n weights j
    of i's output channel, all of which alpha depends on.

    weight: (O, ...) latent weights; grad: dC/dW~, same shape and dtype. Returns dC/dW, same shape and dtype.
    ValueError if the shapes differ. Source: Yu's notes on XNOR-Net's gradient, section 1; it corrects the paper's
    section 3.1, where a weight moves alpha in its own entry of W~ only.
    """
    if weight.shape != grad.shape or weight.dim() < 2:
        raise ValueError(
            f"weight and grad must have one shape (O, ...), not {tuple(weight.shape)} and {tuple(grad.shape)}"
        )
    signs = sign(weight)
    through_alpha = signs * (grad * signs).mean(dim=tuple(range(1, weight.dim())), keepdim=True)
    return through_alpha.add_(ste_backward(alpha(weight) * grad, weight))


def _paper_grad_weight(weight: Tensor, grad: Tensor) -> Tensor:
    """dC/dW_i = dC/dW~_i (1/n + alpha 1[|W_i| <= 1]): as printed (Rastegari et al. 2016, section 3.1); not true."""
    return grad / weight[0].numel() + ste_backward(alpha(weight) * grad, weight)


def _detached_grad_weight(weight: Tensor, grad: Tensor) -> Tensor:
    """dC/dW_i = alpha dC/dW~_i 1[|W_i| <= 1]: alpha taken for a constant."""
    return ste_backward(alpha(weight) * grad, weight)


def _reference_grad_weight(weight: Tensor, grad: Tensor) -> Tensor:
    """The corrected gradient times (1 - 1/c) n, as the reference implementations have it, c the input channels.

    The factor is spurious: under Adam it only weakens weight decay and epsilon.
    """
    return update_binary_grad_weight(weight, grad) * ((1 - 1 / weight.shape[1]) * weight[0].numel())


_GRADIENTS = {
    "corrected": update_binary_grad_weight,
    "paper": _paper_grad_weight,
    "detached": _detached_grad_weight,
    "reference": _reference_grad_weight,
}


class _ScaledSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, gradient: Gradient) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.grad_weight = _GRADIENTS[gradient]  # type: ignore[attr-defined]
        return torch.copysign(alpha(weight), sign(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return ctx.grad_weight(weight, grad), None  # type: ignore[attr-defined]


def scaled_sign(weight: Tensor, gradient: Gradient = "corrected") -> Tensor:
    """W~ = alpha sign(W), the binary weights times their scale (Rastegari et al. 2016, eq. 5 and 6).

    weight: (O, ...) latent weights. Returns the same shape and dtype. gradient: `corrected` (see
    `update_binary_grad_weight`), `paper` (as printed there), `detached` (alpha a constant) or `reference` (corrected,
    times (1 - 1/c) n); else ValueError.
    """
    if gradient not in _GRADIENTS:
        raise ValueError(f"unknown gradient {gradient!r}: choose from {', '.join(_GRADIENTS)}")
    return _ScaledSign.apply(weight, gradient)


@torch.no_grad()
def centre_(weight: Tensor) -> None:
    """Subtract, in place, from each latent weight the mean over its input channels (dim 1).

    A single input channel is left alone: less its mean, each weight would be 0.
    """
    if weight.shape[1] == 1:
        return
    weight.sub_(weight.mean(dim=1, keepdim=True))


@torch.no_grad()
def clamp_(weight: Tensor) -> None:
    """Clamp the latent weights, in place, to [-1, 1]: outside, the straight-through estimator passes nothing back."""
    weight.clamp_(-1, 1)
