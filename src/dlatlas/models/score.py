"""Small networks that estimate the clean sample behind a noised one, from which the score follows."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlatlas.models.inputs import check_shape
from dlatlas.models.mlp import mlp
from dlatlas.ops.validate import at_least, positive
from dlatlas.typed import typed


@typed
def denoiser_input(
    t: Float[Tensor, "n"], x: Float[Tensor, "n d"], *, radius: float
) -> Float[Tensor, "n {x.shape[1]+2}"]:
    r"""Join time, a point that is cut off at a radius, and a constant.

    .. math:: z = \bigl( t,\; x \min(1, R / \lVert x \rVert),\; 1 \bigr)

    Parameters
    ----------
    t, x
        Times (n,) and noised points (n, d).
    radius
        R, greater than 0. Noised points are unbounded, and a bound on the input is what makes the kernel bounded.

    Returns
    -------
    Tensor
        (n, d + 2).

    Raises
    ------
    ValueError
        If the radius is not positive.
    """
    positive("radius", radius)
    # The norm is taken of points that are not zero, so that its gradient exists everywhere.
    norm = x.square().sum(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    return torch.cat([t[:, None], x * (radius / norm).clamp_max(1.0), torch.ones_like(t[:, None])], 1)


class TwoLayerDenoiser(nn.Module):
    r"""Two rectified layers with all outputs over the same hidden units, of which only the first one learns.

    .. math:: f_i(z) = \frac{1}{\sqrt m} \sum_{r=1}^m a_{ir} \max(w_r^\top z, 0), \qquad w_r \sim \mathcal N(0, I),
        \quad a_{ir} = \pm 1

    Units come in pairs with the same w and opposite signs a at the start, so that the network begins as zero.

    Parameters
    ----------
    dims
        Dimension of a sample, the number of outputs d; inputs z have d + 2 entries, see `denoiser_input`.
    width
        Hidden units m, an even number.

    Raises
    ------
    ValueError
        If a size is not positive or the width is odd.

    References
    ----------
    ntk-score-estimation
    """

    signs: Float[Tensor, "d m"]

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        at_least("dims", dims, 1)
        if width < 2 or width % 2:
            raise ValueError(f"width must be a positive even number, got {width}")
        half = torch.randn(width // 2, dims + 2)
        signs = torch.randint(2, (dims, width // 2)) * 2.0 - 1
        self.weight = nn.Parameter(torch.cat([half, half]))
        self.register_buffer("signs", torch.cat([signs, -signs], 1))

    @typed
    def forward(self, z: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        """Give the estimates of the clean samples."""
        check_shape("z", z, self.weight.shape[1])
        hidden = torch.relu(z @ self.weight.mT)
        return hidden @ self.signs.mT / math.sqrt(len(self.weight))


class MLPDenoiser(nn.Module):
    r"""A multilayer perceptron that sees the noised sample, rescaled to unit order, and the logarithm of the noise.

    .. math:: \hat x_0 = f\Bigl( \frac{x}{\sqrt{1 + \sigma^2}},\, \log \sigma \Bigr), \qquad x = x_0 + \sigma \epsilon

    It knows nothing of subspaces: the comparison for denoisers of a known form.

    Parameters
    ----------
    dims
        Dimension of a sample.
    *widths
        Of the hidden layers.

    Raises
    ------
    ValueError
        If a size is not positive.

    References
    ----------
    diffusion-subspace-clustering
    """

    def __init__(self, dims: int, *widths: int) -> None:
        super().__init__()
        self.network = mlp(dims + 1, *widths, dims, activation="silu")

    @typed
    def forward(self, x: Float[Tensor, "n d"], sigma: Float[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """Give the estimates of the clean samples."""
        scaled = x / (1 + sigma.square()).sqrt()[:, None]
        return self.network(torch.cat([scaled, sigma.log()[:, None]], 1))
