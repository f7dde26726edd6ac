"""Small-scale proxies of training instabilities: sensitivity to the learning rate, and what lowers it."""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def lr_sensitivity(
    final_losses: Float[Tensor, "*batch rates"], init_loss: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    r"""Learning-rate sensitivity: how much worse than the best a learning rate of the grid is on average.

    .. math:: S = \mathbb E_\eta \bigl[ \min(\mathcal L(\eta), \mathcal L_0) \bigr] - \min_\eta \mathcal L(\eta)

    A run that diverged (a loss that is infinite or undefined) counts as the loss at initialisation.

    Parameters
    ----------
    final_losses
        Final loss for every learning rate of a log-uniform grid, the last axis.
    init_loss
        :math:`\mathcal L_0`, the loss at initialisation, finite.

    Returns
    -------
    Tensor
        ``(*batch)``, at least 0.

    Raises
    ------
    ValueError
        When the loss at initialisation is not finite, or there is no learning rate.

    References
    ----------
    transformer-instability-proxies
    """
    validate.finite("init_loss", init_loss)
    validate.at_least("number of learning rates", final_losses.shape[-1], 1)
    ceiling = init_loss[..., None]
    capped = torch.where(final_losses.isfinite(), torch.minimum(final_losses, ceiling), ceiling)
    return capped.mean(-1) - capped.amin(-1)


@typed
def z_loss(logits: Float[Tensor, "*n V"], coef: float = 1e-4) -> Float[Tensor, ""]:
    r"""Penalty that keeps the normaliser of the softmax near one.

    .. math:: \frac{c}{n} \sum_t \log^2 Z_t, \qquad Z_t = \sum_j e^{y_{tj}}

    Its gradient with respect to the logits of one token is :math:`2 c \log Z \operatorname{softmax}(y) / n`.

    Parameters
    ----------
    logits
        :math:`y`, any leading axes of tokens.
    coef
        c, at least 0.

    Returns
    -------
    Tensor
        A scalar, to be added to the cross-entropy.

    Raises
    ------
    ValueError
        When the coefficient is negative.

    References
    ----------
    transformer-instability-proxies
    """
    validate.at_least("coef", coef, 0.0)
    return coef * logits.logsumexp(-1).square().mean()


@typed
def rotary(x: Float[Tensor, "*batch t e"], *, base: float = 1e4) -> Float[Tensor, "*batch t e"]:
    r"""Rotary positions: turn each pair of coordinates by an angle that grows with the position.

    .. math:: (x_{2k} + i\, x_{2k+1}) \, e^{i t\, \mathrm{base}^{-2k/e}}

    Inner products of two rotated vectors depend on the difference of their positions only, and lengths do not change.

    Parameters
    ----------
    x
        Queries or keys, positions on the last axis but one, an even number e of coordinates.
    base
        Sets the slowest rotation, greater than 1.

    Returns
    -------
    Tensor
        Of the shape of ``x``.

    Raises
    ------
    ValueError
        When e is odd or the base is not above 1.

    References
    ----------
    transformer-instability-proxies
    """
    t, e = x.shape[-2:]
    if e % 2:
        raise ValueError(f"x must have an even number of coordinates, got {e}")
    validate.positive("base - 1", base - 1)
    frequency = base ** (-torch.arange(0, e, 2, dtype=x.dtype, device=x.device) / e)
    angle = torch.arange(t, dtype=x.dtype, device=x.device)[:, None] * frequency
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


@typed
def fit_logit_growth(sizes: Float[Tensor, " n"], logits: Float[Tensor, " n"]) -> Float[Tensor, "3"]:
    r"""Quadratic in log-log coordinates through the largest attention logits of several model sizes.

    .. math:: \log \max |z| \approx c_0 + c_1 \log N + c_2 \log^2 N

    Parameters
    ----------
    sizes, logits
        Model sizes and the largest logits at one learning rate, positive; at least three different sizes.

    Returns
    -------
    Tensor
        :math:`(c_0, c_1, c_2)`.

    Raises
    ------
    ValueError
        When there are fewer than three points or a value is not positive.

    References
    ----------
    transformer-instability-proxies
    """
    validate.at_least("number of sizes", sizes.shape[0], 3)
    for name, value in (("sizes", sizes), ("logits", logits)):
        validate.in_range(name, value, torch.finfo(value.dtype).tiny, torch.finfo(value.dtype).max)
    log_size = sizes.log()
    # Centred, so that the normal equations keep their digits in single precision.
    centre = log_size.mean()
    u = log_size - centre
    design = torch.stack([torch.ones_like(u), u, u.square()], dim=-1)
    p, q, r = torch.linalg.solve(design.mT @ design, design.mT @ logits.log())
    return torch.stack([p - q * centre + r * centre**2, q - 2 * r * centre, r])


@typed
def predicted_logit(sizes: Float[Tensor, "*n"], growth: Float[Tensor, "3"]) -> Float[Tensor, "*n"]:
    r"""Largest attention logit that `fit_logit_growth` extrapolates to other model sizes.

    .. math:: \exp(c_0 + c_1 \log N + c_2 \log^2 N)

    Parameters
    ----------
    sizes
        Model sizes, positive.
    growth
        :math:`(c_0, c_1, c_2)`.

    Returns
    -------
    Tensor
        Logits of the shape of ``sizes``. Training is expected to fail where they pass about :math:`10^4`.

    Raises
    ------
    ValueError
        When a size is not positive.

    References
    ----------
    transformer-instability-proxies
    """
    validate.in_range("sizes", sizes, torch.finfo(sizes.dtype).tiny, torch.inf)
    log_size = sizes.log()
    return (growth[0] + growth[1] * log_size + growth[2] * log_size.square()).exp()


class QKNormAttention(nn.Module):
    r"""Causal multi-head attention without biases, with rotary positions, and queries and keys normalised.

    .. math:: z_{ij} = \frac{\langle q_i, k_j \rangle}{\sqrt{d_h}}, \qquad q \leftarrow \mathrm{LN}(q), \quad
        k \leftarrow \mathrm{LN}(k) \quad\text{in each head}

    With gains of one the normalised vectors have length :math:`\sqrt{d_h}`, so :math:`|z_{ij}| \le \sqrt{d_h}`.

    Parameters
    ----------
    dim, heads
        Width of the tokens, a multiple of the number of heads; the width of a head must be even.
    qk_norm
        Whether queries and keys are normalised.

    Raises
    ------
    ValueError
        When the sizes do not fit.
    """

    def __init__(self, dim: int, heads: int, qk_norm: bool = True) -> None:
        super().__init__()
        validate.at_least("heads", heads, 1)
        if dim % (2 * heads):
            raise ValueError(f"dim must be a multiple of 2 * heads, got dim={dim} and heads={heads}")
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        width = dim // heads
        self.query_norm, self.key_norm = (
            nn.LayerNorm(width, bias=False) if qk_norm else nn.Identity() for _ in range(2)
        )

    def logits(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n H t t"]:
        """Give the attention logits z of every head, before the mask."""
        return self._logits_and_values(x)[0]

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        z, value = self._logits_and_values(x)
        later = torch.ones(z.shape[-2:], dtype=torch.bool, device=z.device).triu(1)
        weights = z.masked_fill(later, -torch.inf).softmax(-1)
        return self.output((weights @ value).transpose(-3, -2).flatten(-2))

    def _logits_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = self.query_key_value(x).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for part in parts)
        query, key = rotary(self.query_norm(query)), rotary(self.key_norm(key))
        return query @ key.mT / query.shape[-1] ** 0.5, value


class ProxyBlock(nn.Module):
    """Pre-norm block without biases: attention, then a perceptron of four times the width, each added to its input."""

    def __init__(self, dim: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
        self.attention = QKNormAttention(dim, heads, qk_norm)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False))

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        x = x + self.attention(self.norm_attention(x))
        return x + self.mlp(self.norm_mlp(x))


class ProxyTransformer(nn.Module):
    """Causal language model of the stability experiments: pre-norm, no biases, rotary, embeddings not tied.

    Parameters
    ----------
    vocabulary, dim, depth, heads, qk_norm
        Number of tokens, width, number of blocks, heads in each, and the switch of `QKNormAttention`.
    """

    def __init__(self, vocabulary: int, *, dim: int, depth: int = 2, heads: int = 2, qk_norm: bool = True) -> None:
        super().__init__()
        validate.at_least("vocabulary", vocabulary, 1)
        validate.at_least("depth", depth, 1)
        self.embedding = nn.Parameter(torch.randn(vocabulary, dim))
        self.blocks = nn.ModuleList(ProxyBlock(dim, heads, qk_norm) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.head = nn.Linear(dim, vocabulary, bias=False)

    def forward(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n t V"]:
        """Give the logits of the next token at every position."""
        x = F.embedding(tokens, self.embedding)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@torch.no_grad()
@typed
def max_attention_logit(model: ProxyTransformer, batch: Int[Tensor, "n t"]) -> Float[Tensor, ""]:
    r"""Largest absolute attention logit of a model over all blocks, heads and pairs that the mask lets through.

    .. math:: \max_{\ell, h,\, j \le i} |z_{ij}|

    Parameters
    ----------
    model
        The network.
    batch
        Tokens.

    Returns
    -------
    Tensor
        A scalar; infinite where the network has diverged.

    Raises
    ------
    ValueError
        When the batch is empty.

    References
    ----------
    transformer-instability-proxies
    """
    validate.at_least("tokens in the batch", batch.numel(), 1)
    x, largest = F.embedding(batch, model.embedding), []
    for block in model.blocks:
        z = block.attention.logits(block.norm_attention(x)).tril()
        largest.append(z.abs().nan_to_num(nan=torch.inf).amax())
        x = block(x)
    return torch.stack(largest).amax()


class IndependentAdamW(torch.optim.AdamW):
    r"""AdamW whose weight decay is not multiplied by the learning rate.

    .. math:: \theta \leftarrow \theta - s_t\, (\eta\, u_t + \lambda\, \theta), \qquad
        u_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    with one schedule :math:`s_t` for both. The schedule is read off the learning rate: :math:`s_t` is the present
    rate divided by the one that the optimiser was made with. ``torch.optim.AdamW`` has
    :math:`s_t \eta \lambda\, \theta` for the last term.

    Parameters
    ----------
    params
        What to optimise.
    lr, weight_decay
        :math:`\eta > 0` and :math:`\lambda`.
    betas, eps
        As of AdamW.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        weight_decay: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        validate.positive("lr", lr)
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay / lr)


def warmup_cosine(steps: int, *, peak: float, floor: float = 1e-5, warmup: float = 0.05) -> Callable[[int], float]:
    r"""Schedule of a learning rate as multiples of its peak: linear warm-up, then half a cosine down to a floor.

    .. math:: s_t = \min\Bigl(1, \frac{t + 1}{w}\Bigr) \ (t < w), \qquad
        s_t = f + (1 - f)\, \tfrac12 \Bigl(1 + \cos \pi \frac{t - w}{T - w}\Bigr) \ (t \ge w)

    Parameters
    ----------
    steps
        T, at least 1.
    peak, floor
        Largest rate, and the last one; f is their ratio, at most 1.
    warmup
        Share of the steps that w is.

    Returns
    -------
    Callable
        From the step t = 0, 1, ... to :math:`s_t`, for ``torch.optim.lr_scheduler.LambdaLR``.

    Raises
    ------
    ValueError
        When a number is out of its range.

    References
    ----------
    transformer-instability-proxies
    """
    validate.at_least("steps", steps, 1)
    validate.positive("peak", peak)
    validate.in_range("warmup", warmup, 0.0, 1.0)
    rising, lowest = round(warmup * steps), min(floor / peak, 1.0)

    def schedule(t: int) -> float:
        if t < rising:
            return (t + 1) / rising
        progress = (t - rising) / max(steps - rising, 1)
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2

    return schedule
