"""Neural collapse: its metrics, the optimum of deep linear heads on free features, the optimum under mixup."""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlatlas.ops import validate
from dlatlas.ops.class_moments import class_means
from dlatlas.typed import typed


@typed
def nc_metrics(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    W: Float[Tensor, "K d"],
    target: str | Float[Tensor, " K"] = "etf",
) -> dict[str, Float[Tensor, ""]]:
    r"""Distances to collapse: variability (NC1), frame of the class means (NC2), duality of the classifier (NC3).

    .. math:: \mathrm{NC1} = \tfrac1K \operatorname{tr}(\Sigma_W \Sigma_B^+), \qquad
        \mathrm{NC2} = \Bigl\lVert \frac{\bar H \bar H^\top}{\lVert \bar H \bar H^\top \rVert_F}
        - \frac{T}{\lVert T \rVert_F} \Bigr\rVert_F, \qquad
        \mathrm{NC3} = \Bigl\lVert \frac{W \bar H^\top}{\lVert W \bar H^\top \rVert_F}
        - \frac{T'}{\lVert T' \rVert_F} \Bigr\rVert_F

    with the class means :math:`\bar H` as rows, centred by their unweighted mean for ``"etf"``.

    Parameters
    ----------
    features, labels, W
        Features :math:`h_i`, labels, and the classifier (K, d), of any depth multiplied out.
    target
        ``"etf"``, :math:`T = T' = I - \mathbf 1 \mathbf 1^\top / K`; ``"of"``, :math:`T = T' = I`; or the squared
        lengths (K,) of orthogonal class means, :math:`T` the diagonal matrix of them. Then the classifier has
        lengths of its own, and :math:`T'` is the diagonal matrix of :math:`\lVert w_k \rVert \lVert \bar h_k \rVert`.

    Returns
    -------
    dict
        ``nc1``, ``nc2``, ``nc3``: scalars, zero at collapse.

    Raises
    ------
    ValueError
        When a class has no samples, all class means coincide, the classifier is zero, or the target is not known.

    References
    ----------
    deep-linear-neural-collapse
    """
    K = W.shape[0]
    means = class_means(features, labels, K)
    deviations = features - means[labels]
    centred = means - means.mean(0)
    validate.in_range("spread of the class means", centred.norm(), torch.finfo(means.dtype).tiny, torch.inf)
    validate.in_range("norm of W", W.norm(), torch.finfo(W.dtype).tiny, torch.inf)
    # Σ_B = C'C/K for the centred means C, so tr(Σ_W Σ_B⁺)/K is the mean square of the deviations times C⁺.
    pseudo_inverse = torch.linalg.pinv(centred, rtol=torch.finfo(means.dtype).eps ** 0.5)
    nc1 = (deviations @ pseudo_inverse).square().sum() / features.shape[0]
    frame = centred if isinstance(target, str) and target == "etf" else means
    gram_target, dual_target = _targets(target, frame, W)
    return {
        "nc1": nc1,
        "nc2": _distance_of_shapes(frame @ frame.mT, gram_target),
        "nc3": _distance_of_shapes(W @ frame.mT, dual_target),
    }


@typed
def nearest_mean_disagreement(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], logits: Float[Tensor, "n K"]
) -> Float[Tensor, ""]:
    r"""Share of samples on which the classifier and the nearest class mean disagree (NC4).

    .. math:: \mathrm{NC4} = \frac1n \sum_i
        1\bigl\{ \arg\max_k z_{ik} \ne \arg\min_k \lVert h_i - \bar h_k \rVert \bigr\}

    Parameters
    ----------
    features, labels, logits
        Features, the labels that define the class means, and the logits of the classifier.

    Returns
    -------
    Tensor
        A scalar between 0 and 1.

    Raises
    ------
    ValueError
        When a class has no samples, or a label is out of range.

    References
    ----------
    deep-linear-neural-collapse
    """
    means = class_means(features, labels, logits.shape[1])
    distances = torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist")
    return (logits.argmax(-1) != distances.argmin(-1)).to(features.dtype).mean()


@typed
def deep_linear_ufm_threshold(samples: float, lams: Float[Tensor, " factors"]) -> Float[Tensor, ""]:
    r"""Class size below which a class vanishes from the optimum of a deep linear head on free features.

    .. math:: n^* = (s^*)^2, \qquad s^* = \frac{M}{M-1} \bigl( N c\, (M-1) \bigr)^{\frac{M+1}{2M}}, \qquad
        c = \Bigl( \lambda_H \prod_j \lambda_j \Bigr)^{\frac{1}{M+1}}

    and :math:`s^* = N c` for :math:`M = 1`, the limit.

    Parameters
    ----------
    samples
        Number of samples N of all classes together.
    lams
        The M + 1 penalties :math:`\lambda_1, \dots, \lambda_M, \lambda_H`; only their product matters.

    Returns
    -------
    Tensor
        :math:`n^*`, a scalar.

    Raises
    ------
    ValueError
        When a penalty or the number of samples is not positive, or there is no penalty on the features.

    References
    ----------
    deep-linear-neural-collapse
    """
    validate.positive("samples", samples)
    return _smallest_surviving(samples * _mean_penalty(lams), len(lams) - 1).square()


@typed
def deep_linear_ufm_singular_values(
    n_per_class: Int[Tensor, " K"] | Float[Tensor, " K"], lams: Float[Tensor, " factors"]
) -> Float[Tensor, " K"]:
    r"""Singular values of the optimal logits :math:`H W_1^\top \cdots W_M^\top` on free features, one a class.

    .. math:: z_k = \arg\min_{z \ge 0} \frac{(z - \sqrt{n_k})^2}{2N} + \frac{M+1}{2}\, c\, z^{\frac{2}{M+1}},
        \qquad c = \Bigl( \lambda_H \prod_j \lambda_j \Bigr)^{\frac{1}{M+1}}

    Zero below `deep_linear_ufm_threshold`; above it the larger root of :math:`z + N c\, z^{(1-M)/(1+M)} = \sqrt{n_k}`,
    by Newton's method, which descends to it from :math:`\sqrt{n_k}` because the left-hand side is convex.

    Parameters
    ----------
    n_per_class
        Class sizes :math:`n_k`.
    lams
        The M + 1 penalties :math:`\lambda_1, \dots, \lambda_M, \lambda_H`; only their product matters.

    Returns
    -------
    Tensor
        (K,), in the dtype of ``lams``. The factor j has singular values :math:`(c z_k^{2/(M+1)} / \lambda_j)^{1/2}`.

    Raises
    ------
    ValueError
        When a class is empty, a penalty is not positive, or there is no penalty on the features.

    References
    ----------
    deep-linear-neural-collapse
    """
    validate.in_range("n_per_class", n_per_class, torch.finfo(lams.dtype).tiny, torch.inf)
    M = len(lams) - 1
    sizes = n_per_class.to(lams.dtype)
    Nc = sizes.sum() * _mean_penalty(lams)
    smallest = _smallest_surviving(Nc, M)
    survives = sizes.sqrt() >= smallest
    s = torch.where(survives, sizes.sqrt(), smallest)
    exponent = (1 - M) / (1 + M)
    z = s
    for _ in range(40):
        value, slope = z + Nc * z**exponent - s, 1 + Nc * exponent * z ** (exponent - 1)
        z = z - value / slope
    return torch.where(survives, z, torch.zeros_like(z))


class UFM(nn.Module):
    r"""Unconstrained feature model: a deep linear head on features that are parameters themselves.

    .. math:: \frac{1}{2N} \lVert H W_1^\top \cdots W_M^\top + \mathbf 1 b^\top - Y \rVert_F^2
        + \sum_j \frac{\lambda_j}{2} \lVert W_j \rVert_F^2 + \frac{\lambda_H}{2} \lVert H \rVert_F^2

    Parameters
    ----------
    n_per_class
        Class sizes; the samples are in the order of their classes.
    d, M
        Dimension of features and hidden layers, at least the number of classes K; depth of the head.
    bias
        Whether the last layer has a bias, which is not penalised.
    scale
        Standard deviation of the initial parameters.

    References
    ----------
    deep-linear-neural-collapse
    """

    def __init__(self, n_per_class: Sequence[int], d: int, M: int, *, bias: bool = False, scale: float = 0.5):
        super().__init__()
        K = len(n_per_class)
        validate.at_least("samples of the smallest class", min(n_per_class), 1)
        validate.at_least("M", M, 1)
        validate.at_least("d", d, K)
        sizes = torch.tensor(list(n_per_class))
        self.register_buffer("sizes", sizes)
        self.register_buffer("labels", torch.repeat_interleave(torch.arange(K), sizes))
        self.features = nn.Parameter(scale * torch.randn(len(self.labels), d))
        outputs = [d] * (M - 1) + [K]
        self.weights = nn.ParameterList(scale * torch.randn(output, d) for output in outputs)
        self.bias = nn.Parameter(torch.zeros(K)) if bias else None

    def classifier(self) -> Float[Tensor, "K d"]:
        """Give all linear layers as one matrix."""
        return reduce(lambda product, W: W @ product, self.weights)

    def logits(self) -> Float[Tensor, "n K"]:
        """Give the logits of all samples."""
        logits = self.features @ self.classifier().mT
        return logits if self.bias is None else logits + self.bias

    def forward(self, lams: Float[Tensor, " factors"]) -> Float[Tensor, ""]:
        """Give the objective for the penalties of the layers, then of the features."""
        self._check(lams)
        fit = (self.logits() - F.one_hot(self.labels, len(self.sizes))).square().sum() / (2 * len(self.labels))
        factors = [*self.weights, self.features]
        return fit + sum(lam * factor.square().sum() for lam, factor in zip(lams, factors, strict=True)) / 2

    def optimal_singular_values(self, lams: Float[Tensor, " factors"]) -> Float[Tensor, " K"]:
        """Give `deep_linear_ufm_singular_values`, which hold without a bias only."""
        self._check(lams)
        if self.bias is not None:
            raise ValueError("the closed form is for a head without bias, got one with bias")
        return deep_linear_ufm_singular_values(self.sizes, lams)

    def _check(self, lams: Tensor) -> None:
        if len(lams) != len(self.weights) + 1:
            raise ValueError(f"lams must hold {len(self.weights) + 1} penalties, got {len(lams)}")


@typed
def ufm_mixup_features(
    W: Float[Tensor, "K d"], t: Float[Tensor, "n K"], lamH: float, loss: str = "ce"
) -> Float[Tensor, "n d"]:
    r"""Best free features for a fixed classifier and soft targets.

    .. math:: h = \arg\min_h \; \ell(W h, t) + \frac{\lambda_H}{2} \lVert h \rVert^2
        = \frac{1}{\lambda_H} W^\top (t - p), \qquad
        p = \begin{cases} \mathrm{softmax}(W h) & \text{cross-entropy} \\ W h & \text{squared loss} \end{cases}

    For cross-entropy by Newton's method on the logits, each step shortened to the best of a fixed list of fractions.

    Parameters
    ----------
    W, t
        Classifier; targets, rows that sum to one.
    lamH
        Penalty :math:`\lambda_H`: positive for ``"ce"``, not negative for ``"mse"``, where zero gives the shortest h.
        The rounding of p is divided by it: for rows of W of length one, cross-entropy needs 1e-10 or more in float64
        and 1e-4 in float32.
    loss
        ``"ce"`` for :math:`\ell = -\sum_k t_k \log \mathrm{softmax}(z)_k`, ``"mse"`` for
        :math:`\ell = \frac12 \lVert z - t \rVert^2`.

    Returns
    -------
    Tensor
        (n, d).

    Raises
    ------
    ValueError
        When rows of t are no probabilities, the penalty makes no sense, or the loss is not known.

    References
    ----------
    mixup-neural-collapse
    """
    validate.one_of("loss", loss, ("ce", "mse"))
    validate.in_range("t", t, 0, 1)
    validate.in_range("sum of a row of t", t.sum(-1), 1 - 1e-4, 1 + 1e-4)
    validate.at_least("lamH", lamH, 0)
    gram = W @ W.mT
    if loss == "mse":
        return t @ torch.linalg.pinv(_shifted(gram, lamH), hermitian=True) @ W
    validate.positive("lamH", lamH)
    return _newton(gram, t, lamH) @ W


@typed
def project_three_classes(
    h: Float[Tensor, "n d"], W: Float[Tensor, "K d"], classes: tuple[int, int, int]
) -> Float[Tensor, "n 2"]:
    r"""Coordinates of features in the plane through the classifier vectors of three classes.

    Parameters
    ----------
    h, W
        Features, and the classifier.
    classes
        Three different classes; the first one's vector, less the mean of the three, points along the first axis.

    Returns
    -------
    Tensor
        (n, 2).

    Raises
    ------
    ValueError
        When the classes are not different or out of range.

    References
    ----------
    mixup-neural-collapse
    """
    if len(set(classes)) < 3 or not set(classes) <= set(range(W.shape[0])):
        raise ValueError(f"classes must be three different ones of 0 to {W.shape[0] - 1}, got {classes}")
    corners = W[list(classes)]
    first, second, _ = corners - corners.mean(0)
    right = first / first.norm()
    up = second - (second @ right) * right
    return torch.stack([h @ right, h @ (up / up.norm())], dim=-1)


def _targets(target: str | Tensor, frame: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(target, Tensor):
        validate.in_range("target", target, 0, torch.inf)
        return torch.diag(target), torch.diag(W.norm(dim=-1) * frame.norm(dim=-1))
    validate.one_of("target", target, ("etf", "of"))
    identity = torch.eye(len(frame), dtype=frame.dtype, device=frame.device)
    shape = identity - 1 / len(frame) if target == "etf" else identity
    return shape, shape


def _distance_of_shapes(A: Tensor, T: Tensor) -> Tensor:
    return (A / A.norm() - T / T.norm()).norm()


def _mean_penalty(lams: Tensor) -> Tensor:
    validate.at_least("number of penalties", len(lams), 2)
    validate.in_range("lams", lams, torch.finfo(lams.dtype).tiny, torch.inf)
    return lams.log().mean().exp()


def _smallest_surviving(Nc: Tensor, M: int) -> Tensor:
    # s* = z* M / (M - 1), written so that M = 1 needs no case of its own.
    return M * (M - 1) ** ((1 - M) / (2 * M)) * Nc ** ((M + 1) / (2 * M))


def _shifted(A: Tensor, amount: float) -> Tensor:
    return A + amount * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)


def _newton(gram: Tensor, t: Tensor, lamH: float) -> Tensor:
    """Minimise over features h = W'a, and give the rows a."""
    fractions = 0.5 ** torch.arange(12, dtype=t.dtype, device=t.device)

    def objective(a: Tensor) -> Tensor:
        z = a @ gram
        return torch.logsumexp(z, -1) - (t * z).sum(-1) + lamH / 2 * (a * z).sum(-1)

    a = torch.zeros_like(t)
    for _ in range(30):
        p = torch.softmax(a @ gram, -1)
        curvature = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
        residual = a @ gram - (t - p) @ gram / lamH
        dz = torch.linalg.solve(_shifted(gram @ curvature / lamH, 1), -residual[..., None])
        direction = (t - p - (curvature @ dz)[..., 0]) / lamH - a
        values = objective(a + fractions[:, None, None] * direction)
        # The longest step among those that are best up to rounding: near the optimum Newton's own.
        good = values <= values.amin(0) + 64 * torch.finfo(t.dtype).eps * (1 + values.amin(0).abs())
        a = a + fractions[good.to(t.dtype).argmax(0)][:, None] * direction
    return a
