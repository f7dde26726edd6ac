"""Arithmetic modulo a number, as a classification task on all pairs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.data.split import Split, random_split
from dlatlas.ops.validate import at_least, in_range, one_of
from dlatlas.typed import typed

OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "sum_of_squares": lambda a, b: a**2 + b**2,
}


@typed
def modular_arithmetic(
    modulus: int, *, operation: str = "add", train_fraction: float, generator: torch.Generator
) -> Split:
    r"""Split the table of an operation at random.

    .. math:: y = a \circ b \bmod p \quad\text{for all } (a, b) \in \{0, \dots, p - 1\}^2

    Parameters
    ----------
    modulus
        The modulus p, at least 2. There are p² pairs and p classes.
    operation
        The operation ∘, one of add, subtract, multiply, sum_of_squares (a² + b²).
    train_fraction
        Fraction of the pairs for training, rounded to a whole number of pairs.
    generator
        Source of the split.

    Returns
    -------
    Split
        Pairs (n, 2) of integers and results (n,). See `one_hot_pairs` and `equation_tokens` for what a network takes.

    Raises
    ------
    ValueError
        If the modulus is below 2, the operation is not known or the fraction leaves no pair to train or to test on.
    """
    at_least("modulus", modulus, 2)
    one_of("operation", operation, tuple(OPERATIONS))
    in_range("train_fraction", train_fraction, 0, 1)
    numbers = torch.arange(modulus)
    pairs = torch.cartesian_prod(numbers, numbers)
    results = OPERATIONS[operation](*pairs.T) % modulus
    return random_split(pairs, results, round(train_fraction * len(pairs)), generator=generator)


@typed
def one_hot_pairs(pairs: Int[Tensor, "n 2"], modulus: int) -> Float[Tensor, "n {2*modulus}"]:
    """Encode both numbers of a pair by one-hot vectors, side by side: the input of a multilayer perceptron (n, 2p)."""
    in_range("pairs", pairs, 0, modulus - 1)
    return F.one_hot(pairs, modulus).flatten(1).to(torch.get_default_dtype())


@typed
def equation_tokens(pairs: Int[Tensor, "n 2"], modulus: int) -> Int[Tensor, "n 3"]:
    """Write a pair as the tokens a, b, "=" (the token p), at whose last position a transformer is to answer."""
    in_range("pairs", pairs, 0, modulus - 1)
    return F.pad(pairs, (0, 1), value=modulus)
