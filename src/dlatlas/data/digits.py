"""Handwritten digits, 8×8 pixels: the small real data set that comes with scikit-learn."""

from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits

from dlatlas.data.split import Split, random_split
from dlatlas.typed import typed

IMAGE_SIZE = 8
CLASSES = 10
BRIGHTEST = 16


@typed
def digits(*, train: int, classes: Sequence[int] = range(CLASSES), generator: torch.Generator) -> Split:
    """Draw a random split of the 1,797 digits.

    Parameters
    ----------
    train
        Number of training images; all others are for testing. There are about 180 images a class.
    classes
        The digits to keep. Labels are positions in this list: with ``classes=(3, 8)`` a three has label 0, an eight 1.
    generator
        Source of the split.

    Returns
    -------
    Split
        Images (n, 64) with grey levels in [0, 1], rows of pixels one after the other, and labels (n,). A convolutional
        network takes ``x.unflatten(-1, (1, 8, 8))``.

    Raises
    ------
    ValueError
        If the classes are not distinct digits, or ``train`` leaves nothing to train or to test on.
    """
    if len(set(classes)) < max(len(classes), 1) or not set(classes) <= set(range(CLASSES)):
        raise ValueError(f"classes must be distinct digits from 0 to 9, got {list(classes)}")
    pixels, names = load_digits(return_X_y=True)
    x = torch.as_tensor(pixels, dtype=torch.get_default_dtype()) / BRIGHTEST
    matches = torch.as_tensor(names)[:, None] == torch.tensor(list(classes))
    kept = matches.any(1)
    return random_split(x[kept], matches[kept].long().argmax(1), train, generator=generator)
