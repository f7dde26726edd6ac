"""A vision transformer as a sum of paths: taking it apart, pruning, re-weighting and distilling the parts."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dlatlas.models.vit import ViT, patchify
from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def path_components(vit: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "paths n t d"]:
    r"""Take the tokens before the last norm of a pre-norm vision transformer apart into what its branches added.

    .. math:: x_L = x_0 + \sum_{l=1}^L (a_l + b_l), \qquad
        a_l = \mathrm{MSA}_l(x_{l-1}), \quad b_l = \mathrm{FFN}_l(x_{l-1} + a_l), \quad x_l = x_{l-1} + a_l + b_l

    Parameters
    ----------
    vit
        A `dlatlas.models.vit.ViT`, or a module with the same parts (``embed``, ``class_token``, ``positions``,
        ``blocks`` of pre-norm blocks, ``patch_size``).
    images
        Images (n, channels, height, width).

    Returns
    -------
    Tensor
        :math:`x_0, a_1, b_1, \dots, a_L, b_L`, (2 L + 1, n, tokens, d).

    Raises
    ------
    ValueError
        When the blocks are not pre-norm: behind a norm branches do not add up.

    References
    ----------
    vit-path-ensemble
    """
    patches = vit.embed(patchify(images, vit.patch_size))
    class_token = vit.class_token.expand(len(images), 1, -1)
    x = torch.cat([class_token, patches], dim=1) + vit.positions
    components = [x]
    for block in vit.blocks:
        _check_pre_norm(block)
        attended = block.attention(block.norm_attention(x))
        transformed = block.mlp(block.norm_mlp(x + attended))
        x = x + attended + transformed
        components += [attended, transformed]
    return torch.stack(components)


@typed
def prune_paths(components: Float[Tensor, "paths *rest"], kept: Bool[Tensor, " paths"]) -> Float[Tensor, "*rest"]:
    r"""Leave components out of the last sum; they have still fed the later layers.

    .. math:: x_{\text{out}} = \sum_{p \text{ kept}} c_p

    Parameters
    ----------
    components
        Of `path_components`, all tokens or some of them.
    kept
        Which components to sum up, at least one.

    Returns
    -------
    Tensor
        ``(*rest)``, to be normalised and classified.

    Raises
    ------
    ValueError
        When no component is kept.

    References
    ----------
    vit-path-ensemble
    """
    validate.in_range("number of kept paths", kept.sum(), 1, len(kept))
    return torch.einsum("p...,p->...", components, kept.to(components.dtype))


@typed
def component_contributions(
    components: Float[Tensor, "paths n d"], norm: nn.LayerNorm, head: nn.Linear
) -> Float[Tensor, "paths n k"]:
    r"""Contribution of every component to the logits, with the statistics of the last norm held at those of the sum.

    .. math:: h_p = W \Bigl( \gamma \odot \frac{c_p - \bar c_p}{\sigma} \Bigr), \qquad
        \sigma^2 = \operatorname{var}\Bigl( \sum_p c_p \Bigr) + \epsilon, \qquad
        \text{logits} = \sum_p h_p + W \beta + b

    Parameters
    ----------
    components
        Components of the classified token, (2 L + 1, n, d).
    norm
        The last norm, with weight :math:`\gamma` and bias :math:`\beta`.
    head
        The classifier, with weight W and bias b.

    Returns
    -------
    Tensor
        (2 L + 1, n, k).

    References
    ----------
    vit-path-ensemble
    """
    spread = (components.sum(0).var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    centred = components - components.mean(-1, keepdim=True)
    return (norm.weight * centred / spread) @ head.weight.mT


class EnsembleScale(nn.Module):
    r"""Learned weight of every component and channel in the last sum; all one at the start.

    .. math:: x_{\text{out}} = g_0 \odot x_0 + \sum_l (g_{l,a} \odot a_l + g_{l,b} \odot b_l)

    Parameters
    ----------
    components
        Number of components, 2 L + 1.
    dim
        Width d of the tokens.

    Raises
    ------
    ValueError
        When a size is not positive.
    """

    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        validate.at_least("components", components, 1)
        validate.at_least("dim", dim, 1)
        self.weight = nn.Parameter(torch.ones(components, dim))

    @typed
    def forward(self, components: Float[Tensor, "paths *rest d"]) -> Float[Tensor, "*rest d"]:
        """Give the weighted sum of the components."""
        return torch.einsum("p...d,pd->...d", components, self.weight)


class PathEnsembleViT(nn.Module):
    """Vision transformer whose last sum is weighted by `EnsembleScale`.

    Parameters
    ----------
    vit
        The network; its class token is classified.
    """

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.vit = vit
        self.scale = EnsembleScale(2 * len(vit.blocks) + 1, vit.positions.shape[1])

    @typed
    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Give the logits."""
        class_tokens = path_components(self.vit, images)[:, :, 0]
        return self.vit.head(self.vit.norm(self.scale(class_tokens)))


@typed
def path_distillation_loss(
    components: Float[Tensor, "paths n d"],
    weighted: Float[Tensor, "n d"],
    head: Callable[[Tensor], Tensor],
    *,
    tau: float = 1.0,
    mu: float = 0.1,
) -> Float[Tensor, ""]:
    r"""Distil the whole sum into the sums of its first components.

    .. math:: \mu\, \tau^2 \sum_{l < L} \mathrm{KL}\Bigl( \operatorname{softmax}\frac{h(x_{\text{out}})}{\tau}
        \,\Big\|\, \operatorname{softmax} \frac{h(s_l)}{\tau} \Bigr), \qquad s_l = x_0 + \sum_{k \le l} (a_k + b_k)

    with the mean over the images, and no gradient through the teacher :math:`h(x_{\text{out}})`.

    Parameters
    ----------
    components
        Components of the classified token, (2 L + 1, n, d).
    weighted
        The sum :math:`x_{\text{out}}` that is classified, weighted or not, (n, d).
    head
        :math:`h`, the last norm and the classifier: (n, d) to logits (n, k).
    tau, mu
        Temperature :math:`\tau` and weight :math:`\mu` of the loss.

    Returns
    -------
    Tensor
        A scalar, to be added to the cross-entropy; zero for a single layer, which has no short path.

    Raises
    ------
    ValueError
        When the temperature is not positive or the weight is negative.

    References
    ----------
    vit-path-ensemble
    """
    validate.positive("tau", tau)
    validate.at_least("mu", mu, 0)
    teacher = (head(weighted).detach() / tau).log_softmax(-1)
    partial = components.cumsum(0)[2:-2:2]
    losses = [_divergence(teacher, (head(s) / tau).log_softmax(-1)) for s in partial]
    return mu * tau**2 * torch.stack([torch.zeros_like(teacher[0, 0]), *losses]).sum()


@typed
def token_high_frequency(tokens: Float[Tensor, "n t d"], grid: tuple[int, int]) -> Float[Tensor, ""]:
    r"""Logarithm of the amplitude of the highest spatial frequencies of tokens relative to that of their mean.

    .. math:: \log \bar A(f_{\max}) - \log \bar A(0), \qquad
        \bar A(f) = \text{mean over images and channels of } \Bigl| \sum_{r} x_r e^{-2\pi i f \cdot r} \Bigr|

    Parameters
    ----------
    tokens
        Tokens of the patches in reading order (n, t, d), without the class token.
    grid
        Rows and columns of the grid of patches, with a product of t.

    Returns
    -------
    Tensor
        A scalar; more negative where low frequencies dominate.

    Raises
    ------
    ValueError
        When the grid does not fit the tokens or has a single patch.

    References
    ----------
    vit-path-ensemble
    """
    rows, columns = grid
    if rows * columns != tokens.shape[1] or rows * columns < 2:
        raise ValueError(f"grid must have {tokens.shape[1]} places and more than one, got {rows}×{columns}")
    amplitude = torch.fft.fft2(tokens.unflatten(1, grid), dim=(1, 2)).abs().mean((0, -1))
    vertical, horizontal = (torch.fft.fftfreq(side, device=tokens.device).square() for side in grid)
    radius = vertical[:, None] + horizontal
    # Frequencies of opposite sign are equal only up to rounding.
    highest = radius > 0.999 * radius.max()
    return torch.where(highest, amplitude, 0).sum().div(highest.sum()).log() - amplitude[0, 0].log()


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    # Written out: kl_div has no batching rule, so stacked networks would run one by one.
    return (teacher.exp() * (teacher - student)).sum(-1).mean()


def _check_pre_norm(block: nn.Module) -> None:
    if not all(hasattr(block, part) for part in ("norm_attention", "attention", "norm_mlp", "mlp")):
        raise ValueError(
            f"blocks must be pre-norm ones like dlatlas.models.transformer.Block, got {type(block).__name__}"
        )
