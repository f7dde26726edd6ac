"""Grokking: the quadratic committee and its exact test error, softmax collapse, StableMax, the orthogonal gradient."""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def quad_committee(W: Float[Tensor, "N D"], X: Float[Tensor, "P D"], alpha: float, eps: float) -> Float[Tensor, " P"]:
    r"""Committee of quadratic units whose hidden weights alone are trained.

    .. math:: f(x) = \frac{\alpha}{N} \sum_{i=1}^N \phi(w_i \cdot x), \qquad \phi(h) = h + \tfrac{\varepsilon}{2} h^2

    Train it at a rate :math:`\eta \propto N/\alpha^2`, so that the speed of :math:`f` does not depend on
    :math:`\alpha`: with one rate for all, a sweep over the output scale is a sweep over the step size.

    Parameters
    ----------
    W, X
        Hidden weights :math:`w_i`, one row a unit, :math:`N(0, I_D)` at the start; inputs, :math:`N(0, I_D / D)`.
    alpha, eps
        Output scale :math:`\alpha` (large is lazy, small is rich) and weight :math:`\varepsilon` of the quadratic part.

    Returns
    -------
    Tensor
        :math:`f(x)` for every row of ``X``.

    Raises
    ------
    ValueError
        When ``alpha`` or ``eps`` is not positive.

    References
    ----------
    grokking-lazy-to-rich
    """
    validate.positive("alpha", alpha)
    validate.positive("eps", eps)
    h = X @ W.mT
    return alpha * (h + eps / 2 * h.square()).mean(-1)


@typed
def quad_committee_test_error(
    W: Float[Tensor, "N D"],
    beta: Float[Tensor, " D"],
    alpha: float,
    eps: float,
    W0: Float[Tensor, "N D"] | None = None,
) -> Float[Tensor, ""]:
    r"""Exact population error of the committee on the target :math:`\tfrac12 (\beta \cdot x)^2`.

    .. math:: \mathrm{E}\bigl[(a \cdot x + \tfrac12 x^\top B x - \tfrac12 (\beta \cdot x)^2)^2\bigr]
        = \frac{\lVert a \rVert^2}{D} + \frac{2 \lVert B - C \rVert_F^2 + (\operatorname{tr}(B - C))^2}{4 D^2},
        \qquad C = \beta\beta^\top

    for :math:`x \sim N(0, I_D / D)`, with :math:`a = \alpha \bar w`, :math:`B = \alpha \varepsilon M`,
    :math:`\bar w = \tfrac1N \sum_i w_i` and :math:`M = \tfrac1N \sum_i w_i w_i^\top`.

    Parameters
    ----------
    W, alpha, eps, beta
        As in `quad_committee`, and the direction :math:`\beta` of the target.
    W0
        Initial weights, for the centred predictor :math:`f - f_0` with coefficients :math:`a - a_0, B - B_0`; None for
        :math:`f` itself.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        When ``alpha`` or ``eps`` is not positive.

    References
    ----------
    grokking-lazy-to-rich
    """
    validate.positive("alpha", alpha)
    validate.positive("eps", eps)
    mean, second = _moments(W)
    if W0 is not None:
        mean0, second0 = _moments(W0)
        mean, second = mean - mean0, second - second0
    D = beta.shape[0]
    a, gap = alpha * mean, alpha * eps * second - torch.outer(beta, beta)
    return a.square().sum() / D + (2 * gap.square().sum() + gap.trace().square()) / (4 * D**2)


@typed
def first_below(curve: Float[Tensor, " T"], level: float) -> Float[Tensor, ""]:
    r"""First step at which a curve lies below a level, :math:`t(c, \ell) = \min(\{t : c_t < \ell\} \cup \{T\})`.

    Parameters
    ----------
    curve, level
        One value a step, and the level :math:`\ell`.

    Returns
    -------
    Tensor
        A scalar; the length T of the curve when the level is never reached.

    Raises
    ------
    ValueError
        When the curve has infinite or undefined entries.

    References
    ----------
    grokking-lazy-to-rich
    """
    validate.finite("curve", curve)
    return torch.cumprod((curve >= level).to(curve.dtype), dim=0).sum()


@typed
def grok_delay(train: Float[Tensor, " T"], test: Float[Tensor, " T"], level: float) -> Float[Tensor, ""]:
    r"""Steps from the fall of the train error to that of the test error, :math:`t(\text{test}) - t(\text{train})`.

    Both are measured by `first_below`, so a test error that never falls gives a lower bound of the delay.

    Parameters
    ----------
    train, test, level
        Errors, one value a step, and the level that counts as fitted.

    Returns
    -------
    Tensor
        A scalar, negative when the test error falls first.

    Raises
    ------
    ValueError
        When a curve has infinite or undefined entries, or the train error never falls: then there is no delay.

    References
    ----------
    grokking-lazy-to-rich
    """
    fitted = first_below(train, level)
    validate.in_range("step at which train falls below level", fitted, 0, train.shape[0] - 1)
    return first_below(test, level) - fitted


@typed
def stablemax(z: Float[Tensor, "*shape"], dim: int = -1) -> Float[Tensor, "*shape"]:
    r"""Probabilities that grow with a logit linearly instead of exponentially.

    .. math:: p_k = \frac{s(z_k)}{\sum_j s(z_j)}, \qquad
        s(x) = \begin{cases} x + 1 & x \ge 0 \\ 1 / (1 - x) & x < 0 \end{cases}

    This is the softmax of :math:`\log s(z) = \operatorname{sign}(z) \log(1 + |z|)`, and is computed as such.

    Parameters
    ----------
    z, dim
        Logits, and the dimension of their classes.

    Returns
    -------
    Tensor
        Probabilities, in the dtype of ``z``.

    Raises
    ------
    ValueError
        When a logit is infinite or undefined.

    References
    ----------
    softmax-collapse-perpgrad
    """
    validate.finite("z", z)
    return torch.softmax(_log_s(z), dim)


@typed
def stablemax_cross_entropy(
    z: Float[Tensor, "n classes"], y: Int[Tensor, " n"], reduction: str = "mean"
) -> Float[Tensor, "*reduced"]:
    r"""Cross-entropy of the StableMax probabilities.

    .. math:: -\frac1n \sum_i \log p_{y_i}(z_i)

    computed in the dtype of ``z``; in double precision by ``stablemax_cross_entropy(z.double(), y)``.

    Parameters
    ----------
    z, y
        Logits; labels from 0 to classes - 1.
    reduction
        ``"mean"``, ``"sum"`` or ``"none"``.

    Returns
    -------
    Tensor
        A scalar, or (n,) for ``"none"``.

    Raises
    ------
    ValueError
        For labels out of range, logits that are not finite, or an unknown reduction.

    References
    ----------
    softmax-collapse-perpgrad
    """
    validate.one_of("reduction", reduction, ("mean", "sum", "none"))
    validate.finite("z", z)
    validate.labels("y", y, z.shape[1])
    return F.cross_entropy(_log_s(z), y, reduction=reduction)


@typed
def softmax_collapse_rate(z: Float[Tensor, "n classes"], dtype: torch.dtype) -> Float[Tensor, ""]:
    r"""Fraction of samples whose softmax has collapsed in a floating-point type.

    .. math:: \mathrm{SC} = \frac1n \sum_i 1\Bigl\{ \sum_k e^{z_{ik} - \max_j z_{ij}} = 1 \Bigr\}

    with the sum rounded to the type. A collapsed sample that is classified correctly has a loss of exactly zero, and a
    derivative of exactly zero with respect to its correct logit. With two classes that happens from a gap of
    :math:`t \log 2` on, for :math:`t` significant bits: 7.62 in float16, 16.64 in float32, 36.74 in float64.

    Parameters
    ----------
    z, dtype
        Logits, and the type in which the softmax is computed, such as ``torch.float32``.

    Returns
    -------
    Tensor
        A scalar between 0 and 1, in the dtype of ``z``.

    Raises
    ------
    ValueError
        When a logit is infinite or undefined, or ``dtype`` is not a floating-point type.

    References
    ----------
    softmax-collapse-perpgrad
    """
    validate.finite("z", z)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type, got {dtype}")
    low = z.to(dtype)
    total = torch.exp(low - low.amax(-1, keepdim=True)).sum(-1)
    return (total == 1).to(z.dtype).mean()


@typed
def orthogonalise_grads(params: Iterable[Tensor], *, batch_dims: int = 0, eps: float = 1e-30) -> None:
    r"""Remove from every gradient its component along the weights, and restore its norm; in place.

    .. math:: g_\perp = g - \frac{w \cdot g}{w \cdot w + \epsilon}\, w, \qquad
        g \leftarrow g_\perp\, \frac{\lVert g \rVert}{\lVert g_\perp \rVert + \epsilon}

    for each tensor by itself. Call it between ``backward()`` and the step of any optimiser.

    Parameters
    ----------
    params
        Parameters that carry their gradient :math:`g` in ``.grad``, which changes in place: ``vmap`` cannot map over a
        call. Those without a gradient are left alone.
    batch_dims
        How many leading axes of every parameter count independent networks: 0 for a plain network, 1 for an ensemble
        with parameters (S, ...).
    eps
        Guard :math:`\epsilon` against division by zero.

    Raises
    ------
    ValueError
        When a tensor has one entry a network (nothing would remain) or is zero (it has no direction): leave it out.

    References
    ----------
    softmax-collapse-perpgrad
    """
    for index, parameter in enumerate(params):
        if parameter.grad is not None:
            w, g = _vectors(parameter.detach(), batch_dims), _vectors(parameter.grad, batch_dims)
            _check_direction(index, w)
            g_perp = g - (w * g).sum(-1, keepdim=True) / (w.square().sum(-1, keepdim=True) + eps) * w
            scale = g.norm(dim=-1, keepdim=True) / (g_perp.norm(dim=-1, keepdim=True) + eps)
            parameter.grad.copy_((scale * g_perp).reshape(parameter.shape))


@typed
def weight_alignment(params: Iterable[Tensor], *, batch_dims: int = 0) -> Float[Tensor, "*batch"]:
    r"""Cosine between the direction of steepest descent and the weights, near 1 when descent only lengthens them.

    .. math:: \cos(-g, \theta) = -\frac{g \cdot \theta}{\lVert g \rVert\, \lVert \theta \rVert}

    Parameters
    ----------
    params
        Parameters that carry their gradient in ``.grad``, which ``vmap`` does not see; all together are one vector.
    batch_dims
        As in `orthogonalise_grads`.

    Returns
    -------
    Tensor
        A scalar, or one value for each network.

    Raises
    ------
    ValueError
        When no parameter has a gradient, or weights or gradients are zero.

    References
    ----------
    softmax-collapse-perpgrad
    """
    trained = [p for p in params if p.grad is not None]
    if not trained:
        raise ValueError("params must carry gradients, got none: call backward() first")
    weights = torch.cat([_vectors(p.detach(), batch_dims) for p in trained], dim=-1)
    gradients = torch.cat([_vectors(p.grad, batch_dims) for p in trained], dim=-1)
    sizes = weights.norm(dim=-1) * gradients.norm(dim=-1)
    validate.in_range("norm of weights times norm of gradients", sizes, torch.finfo(sizes.dtype).tiny, math.inf)
    return -(weights * gradients).sum(-1) / sizes


class OrthoGrad(torch.optim.Optimizer):
    """Any optimiser, on gradients made orthogonal to the weights (perpGrad): `orthogonalise_grads`, then its step.

    Parameters
    ----------
    params, batch_dims
        Parameters or parameter groups; how many leading axes count networks, as in `orthogonalise_grads`.
    base, **options
        Class of the base optimiser, such as ``torch.optim.AdamW``, and its options, such as ``lr``.

    References
    ----------
    softmax-collapse-perpgrad
    """

    def __init__(
        self, params: Iterable[Any], base: type[torch.optim.Optimizer], *, batch_dims: int = 0, **options: Any
    ):
        self.batch_dims = batch_dims
        self.base = base(params, **options)
        super().__init__(self.base.param_groups, self.base.defaults)
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Orthogonalise the gradients, then let the base optimiser step."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            orthogonalise_grads(group["params"], batch_dims=self.batch_dims)
        self.base.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the base optimiser."""
        self.base.load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:  # schedulers and checkpoints see one optimiser
        self.param_groups, self.state = self.base.param_groups, self.base.state


def _moments(W: Tensor) -> tuple[Tensor, Tensor]:
    return W.mean(0), W.mT @ W / W.shape[0]


def _log_s(z: Tensor) -> Tensor:
    # Both branches are clamped: a branch that is not taken must not send an undefined slope back.
    return torch.where(z >= 0, torch.log1p(z.clamp(min=0)), -torch.log1p(-z.clamp(max=0)))


def _vectors(tensor: Tensor, batch_dims: int) -> Tensor:
    return tensor.reshape(*tensor.shape[:batch_dims], -1)


def _check_direction(index: int, w: Tensor) -> None:
    if w.shape[-1] < 2:
        raise ValueError(f"parameter {index} must have at least 2 entries, got 1: nothing is perpendicular to it")
    if (w == 0).all(-1).any():
        raise ValueError(f"parameter {index} must not be zero: it has no direction")
