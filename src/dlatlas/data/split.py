"""Training and test data together."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.typed import typed


class Split(NamedTuple):
    """Inputs (one row a sample) and labels for training, and those held back for testing."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor


@typed
def random_split(
    x: Float[Tensor, "n ..."] | Int[Tensor, "n ..."],
    y: Float[Tensor, "n ..."] | Int[Tensor, "n ..."],
    train: int,
    *,
    generator: torch.Generator,
) -> Split:
    """Shuffle the samples and keep the first ``train`` of them for training, the rest for testing.

    Parameters
    ----------
    x, y
        Inputs and labels; rows are samples.
    train
        Number of training samples, at least 1 and fewer than n.
    generator
        Source of the order.

    Returns
    -------
    Split
        ``x_train, y_train, x_test, y_test``.

    Raises
    ------
    ValueError
        If ``train`` leaves nothing to train or to test on.
    """
    samples = x.shape[0]
    if not 1 <= train < samples:
        raise ValueError(f"train must be at least 1 and less than the {samples} samples, got {train}")
    order = torch.randperm(samples, generator=generator)
    kept, held_back = order[:train], order[train:]
    return Split(x[kept], y[kept], x[held_back], y[held_back])


@typed
def standardise(split: Split) -> Split:
    r"""Give every column zero mean and unit variance on the training data.

    .. math:: x_j \leftarrow (x_j - \bar x_j) / s_j

    Columns that are constant on the training data are only centred. The test data are moved by the same numbers.

    Parameters
    ----------
    split
        Data whose inputs are matrices (n, d).

    Returns
    -------
    Split
        The same data in the new units.
    """
    mean = split.x_train.mean(0)
    deviation = split.x_train.std(0, correction=0)
    scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    return split._replace(x_train=(split.x_train - mean) / scale, x_test=(split.x_test - mean) / scale)
