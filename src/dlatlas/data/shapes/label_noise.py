"""Wrong labels at a known rate."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def flip_labels(
    target: Int[Tensor, "n"], transition: Float[Tensor, "c c"], *, generator: torch.Generator
) -> Int[Tensor, "n"]:
    r"""Draw noisy labels: :math:`P(\tilde y = j \mid y = i) = T_{ij}`.

    Parameters
    ----------
    target
        True labels y.
    transition
        T, with rows that sum to one; see `symmetric_noise` and `pair_noise`.
    generator
        A CPU generator.
    """
    validate.labels("target", target, len(transition))
    validate.in_range("transition", transition, 0.0, 1.0)
    if not torch.allclose(transition.sum(1), torch.ones_like(transition[:, 0]), atol=1e-6):
        raise ValueError(f"transition must have rows that sum to 1, got sums {transition.sum(1).tolist()}")
    u = torch.rand(len(target), 1, generator=generator, dtype=torch.float64).to(target.device)
    cumulative = transition.to(target.device, torch.float64).cumsum(1)[target]
    return torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True)[:, 0]


@typed
def symmetric_noise(classes: int, rate: float) -> Float[Tensor, "c c"]:
    """Transition matrix in which a label changes with probability ``rate``, to each other class alike."""
    validate.at_least("classes", classes, 2)
    validate.in_range("rate", rate, 0.0, 1.0)
    off = torch.full((classes, classes), rate / (classes - 1), dtype=torch.float64)
    return off.fill_diagonal_(1 - rate)


@typed
def pair_noise(classes: int, rate: float) -> Float[Tensor, "c c"]:
    """Transition matrix in which a label changes with probability ``rate``, always to the next class."""
    validate.at_least("classes", classes, 2)
    validate.in_range("rate", rate, 0.0, 1.0)
    same = torch.eye(classes, dtype=torch.float64)
    return (1 - rate) * same + rate * same.roll(1, dims=1)
