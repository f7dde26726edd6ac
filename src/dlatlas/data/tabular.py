"""Small tables of measurements."""

import torch
from jaxtyping import Float
from sklearn.datasets import load_breast_cancer
from torch import Tensor

from dlatlas.data.split import Split, random_split
from dlatlas.ops.validate import at_least
from dlatlas.typed import typed


@typed
def breast_cancer(*, train: int, generator: torch.Generator) -> Split:
    """Draw a random split of the Wisconsin diagnostic data: 569 tumours, 30 measurements each.

    Parameters
    ----------
    train
        Number of training samples; all others are for testing.
    generator
        Source of the split.

    Returns
    -------
    Split
        Measurements (n, 30) in their own units (see `dlatlas.data.split.standardise`) and labels (n,): 0 malignant,
        1 benign.

    Raises
    ------
    ValueError
        If ``train`` leaves nothing to train or to test on.
    """
    measurements, names = load_breast_cancer(return_X_y=True)
    x = torch.as_tensor(measurements, dtype=torch.get_default_dtype())
    return random_split(x, torch.as_tensor(names, dtype=torch.int64), train, generator=generator)


@typed
def add_noise_columns(split: Split, columns: int, *, generator: torch.Generator) -> Split:
    """Append columns of standard normal noise, which say nothing about the labels.

    Parameters
    ----------
    split
        Data whose inputs are matrices (n, d).
    columns
        Number of columns to append.
    generator
        Source of the noise.

    Returns
    -------
    Split
        The same data with inputs (n, d + columns).

    Raises
    ------
    ValueError
        If ``columns`` is not positive.
    """
    at_least("columns", columns, 1)

    def widened(x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        return torch.cat([x, torch.randn(x.shape[0], columns, generator=generator, dtype=x.dtype)], dim=1)

    return split._replace(x_train=widened(split.x_train), x_test=widened(split.x_test))
