"""Images stored as bytes, from bytes to tensors."""

import torch
from numpy.typing import NDArray

from dlatlas.data.split import Split

BRIGHTEST = 255


def random_images(arrays: dict[str, NDArray], *, train: int, test: int, generator: torch.Generator) -> Split:
    """Draw from stored sets of images, without repetition.

    Parameters
    ----------
    arrays
        Bytes ``x_train`` and ``x_test`` (n, channels, height, width), labels ``y_train`` and ``y_test`` (n,).
    train, test
        Number of images to draw from each set.
    generator
        Source of the choice and the order.

    Returns
    -------
    Split
        Images with values in [0, 1], and labels.

    Raises
    ------
    ValueError
        If there are not so many images.
    """
    drawn = {}
    for part, wanted in (("train", train), ("test", test)):
        stored = len(arrays[f"y_{part}"])
        if not 1 <= wanted <= stored:
            raise ValueError(f"{part} must lie between 1 and the {stored} images there are, got {wanted}")
        chosen = torch.randperm(stored, generator=generator)[:wanted].numpy()
        drawn[f"x_{part}"] = torch.as_tensor(arrays[f"x_{part}"][chosen]).to(torch.get_default_dtype()) / BRIGHTEST
        drawn[f"y_{part}"] = torch.as_tensor(arrays[f"y_{part}"][chosen]).long()
    return Split(**drawn)
