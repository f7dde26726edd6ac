"""Teachers: known functions whose values a network learns from examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops.validate import at_least, positive
from dlatlas.typed import typed


@typed
def gaussian_inputs(n: int, dims: int, *, deviation: float = 1.0, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Draw points (n, d) whose coordinates are independent normal with mean 0 and the given standard deviation."""
    positive("deviation", deviation)
    return deviation * torch.randn(n, dims, generator=generator)


@typed
def sphere_inputs(n: int, dims: int, *, radius: float = 1.0, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Draw points (n, d) uniformly from the sphere of the given radius."""
    positive("radius", radius)
    directions = torch.randn(n, dims, generator=generator)
    return radius * directions / directions.norm(dim=1, keepdim=True)


@typed
def circle(n: int, *, radius: float = 1.0) -> Float[Tensor, "n 2"]:
    """Give n points at equal angles 2πi/n on the circle of the given radius, the first at (radius, 0)."""
    at_least("n", n, 1)
    positive("radius", radius)
    angles = 2 * pi * torch.arange(n) / n
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


@dataclass(frozen=True)
class LinearTeacher:
    r"""A linear function of unit variance on standard normal inputs when :math:`|\beta|^2 = d`.

    .. math:: y = \beta^\top x / \sqrt d

    Parameters
    ----------
    beta
        Coefficients β (d,).
    """

    beta: Float[Tensor, "d"]

    @typed
    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        return x @ self.beta / self.beta.numel() ** 0.5


@dataclass(frozen=True)
class QuadraticTeacher:
    r"""Half the square of one direction.

    .. math:: y = \tfrac12 (\beta^\top x)^2

    Parameters
    ----------
    beta
        Direction β (d,); :math:`|\beta|^2 = d` goes with inputs of variance 1/d.
    """

    beta: Float[Tensor, "d"]

    @typed
    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        return (x @ self.beta).square() / 2


@dataclass(frozen=True)
class TwoLayerTeacher:
    r"""A two-layer network without biases.

    .. math:: y = \frac{1}{\sqrt m} \sum_{j=1}^m a_j\, \phi(w_j^\top x / \sqrt d)

    Parameters
    ----------
    hidden
        Hidden weights w (m, d).
    output
        Output weights a (m,).
    activation
        The function φ, elementwise.
    """

    hidden: Float[Tensor, "m d"]
    output: Float[Tensor, "m"]
    activation: Callable[[Tensor], Tensor]

    @typed
    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        width, dims = self.hidden.shape
        return self.activation(x @ self.hidden.T / dims**0.5) @ self.output / width**0.5


@dataclass(frozen=True)
class FourierTeacher:
    r"""A trigonometric polynomial of the angle φ of a point in the plane.

    .. math:: y = \sum_j a_j \cos(k_j \varphi) + b_j \sin(k_j \varphi)

    Parameters
    ----------
    frequencies
        Frequencies k (m,), whole numbers.
    cosine, sine
        Coefficients a and b (m,).
    """

    frequencies: Float[Tensor, "m"]
    cosine: Float[Tensor, "m"]
    sine: Float[Tensor, "m"]

    @typed
    def __call__(self, x: Float[Tensor, "n 2"]) -> Float[Tensor, "n"]:
        phases = torch.atan2(x[:, 1], x[:, 0])[:, None] * self.frequencies
        return phases.cos() @ self.cosine + phases.sin() @ self.sine


@typed
def linear_teacher(dims: int, *, generator: torch.Generator) -> LinearTeacher:
    """Draw a linear teacher with β uniform on the sphere of radius √d."""
    return LinearTeacher(sphere_inputs(1, dims, radius=dims**0.5, generator=generator)[0])


@typed
def quadratic_teacher(dims: int, *, generator: torch.Generator) -> QuadraticTeacher:
    """Draw a quadratic teacher with β uniform on the sphere of radius √d."""
    return QuadraticTeacher(sphere_inputs(1, dims, radius=dims**0.5, generator=generator)[0])


@typed
def two_layer_teacher(
    dims: int, width: int, *, activation: Callable[[Tensor], Tensor] = torch.relu, generator: torch.Generator
) -> TwoLayerTeacher:
    """Draw a two-layer teacher with standard normal weights."""
    hidden = torch.randn(width, dims, generator=generator)
    return TwoLayerTeacher(hidden, torch.randn(width, generator=generator), activation)


@typed
def fourier_teacher(frequencies: Sequence[int], *, generator: torch.Generator) -> FourierTeacher:
    """Draw a trigonometric polynomial with the given frequencies, normal coefficients, mean square 1 on the circle."""
    at_least("number of frequencies", len(frequencies), 1)
    at_least("smallest of frequencies", min(frequencies), 1)
    coefficients = torch.randn(2, len(frequencies), generator=generator)
    cosine, sine = coefficients * (2**0.5 / coefficients.norm())
    return FourierTeacher(torch.tensor(frequencies, dtype=coefficients.dtype), cosine, sine)
