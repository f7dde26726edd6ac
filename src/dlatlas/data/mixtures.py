"""Gaussian mixtures, whose best possible classifier is known."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops.validate import at_least, positive
from dlatlas.typed import typed


@dataclass(frozen=True)
class GaussianMixture:
    r"""One Gaussian a class, all with the same diagonal covariance.

    .. math:: p(y = k) = \pi_k, \qquad x_j \mid y = k \sim \mathcal N(\mu_{kj}, \sigma_j^2)

    Parameters
    ----------
    means
        Class means μ (K, d).
    deviations
        Standard deviations σ (d,), positive.
    priors
        Class probabilities π (K,), which sum to one.
    """

    means: Float[Tensor, "k d"]
    deviations: Float[Tensor, "d"]
    priors: Float[Tensor, "k"]

    def __post_init__(self) -> None:
        classes, dims = self.means.shape
        if self.deviations.shape != (dims,) or not (self.deviations > 0).all():
            raise ValueError(f"deviations must be {dims} positive numbers, got {self.deviations}")
        total = self.priors.sum()
        if (
            self.priors.shape != (classes,)
            or (self.priors < 0).any()
            or not torch.isclose(total, torch.ones_like(total))
        ):
            raise ValueError(f"priors must be {classes} probabilities that sum to one, got {self.priors}")

    @typed
    def sample(self, n: int, *, generator: torch.Generator) -> tuple[Float[Tensor, "n d"], Int[Tensor, "n"]]:
        """Draw ``n`` points (n, d) and their labels (n,)."""
        at_least("n", n, 1)
        y = torch.multinomial(self.priors, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[y] + self.deviations * noise, y

    @typed
    def log_joint(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        r"""Give :math:`\log \pi_k p(x \mid k)` up to a constant that is the same for all classes."""
        scaled, means = x / self.deviations, self.means / self.deviations
        return self.priors.log() - torch.cdist(scaled, means, compute_mode="donot_use_mm_for_euclid_dist").square() / 2

    @typed
    def posterior(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        r"""Give the exact class probabilities :math:`p(y = k \mid x)`."""
        return self.log_joint(x).softmax(1)

    @typed
    def bayes_labels(self, x: Float[Tensor, "n d"]) -> Int[Tensor, "n"]:
        """Give the most probable class of every point: no classifier errs less often."""
        return self.log_joint(x).argmax(1)


@typed
def gaussian_mixture(
    *, classes: int, dims: int, separation: float, imbalance: float = 1.0, generator: torch.Generator
) -> GaussianMixture:
    r"""Draw a mixture with random class means and unit noise.

    .. math:: \mu_k \sim \mathcal N(0, \tfrac{s^2}{2d} I_d), \qquad \pi_k \propto \rho^{-k / (K - 1)}

    Parameters
    ----------
    classes
        Number of classes K.
    dims
        Dimension d.
    separation
        Root mean square distance s between two class means, in units of the noise's standard deviation.
    imbalance
        Ratio ρ of the largest to the smallest class probability, at least 1; the classes between follow geometrically.
    generator
        Source of the means.

    Returns
    -------
    GaussianMixture
        The mixture, class 0 being the most frequent; ``sample`` draws from it.

    Raises
    ------
    ValueError
        If there are fewer than two classes or no dimension, the separation is not positive or the imbalance below 1.
    """
    at_least("classes", classes, 2)
    at_least("dims", dims, 1)
    positive("separation", separation)
    at_least("imbalance", imbalance, 1)
    means = separation / (2 * dims) ** 0.5 * torch.randn(classes, dims, generator=generator)
    frequencies = imbalance ** -torch.linspace(0, 1, classes)
    return GaussianMixture(means, torch.ones(dims), frequencies / frequencies.sum())
