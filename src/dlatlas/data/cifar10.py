"""CIFAR-10: colour photographs of ten kinds of things, 32×32 pixels, from the data home."""

import tarfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dlatlas.data.home import PreparedFile, PublishedFile, fetch, prepared
from dlatlas.data.images import random_images
from dlatlas.data.split import Split
from dlatlas.typed import typed

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# 1,000 training and 200 test images a class; enough for every setting of the book.
PREPARED = PreparedFile("cifar10_subset.npz", "sha256:9e232ce0b5ce3f74a7de70cd83f5fe2028934ac524632e6c2e59435a14cc08a2")
# The binary version of the official archive, because the Python version is made of pickles.
PUBLISHED = PublishedFile(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
)
FOLDER = "cifar-10-batches-bin"
BATCHES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
SIZE, CHANNELS = 32, 3


@typed
def cifar10(*, train: int, test: int, generator: torch.Generator) -> Split:
    """Draw images at random from the training and from the test set.

    Parameters
    ----------
    train, test
        Number of images from each set: at most 50,000 and 10,000 with the official archive, 10,000 and 2,000 where the
        data home has the prepared subset.
    generator
        Source of the choice and the order.

    Returns
    -------
    Split
        Images (n, 3, 32, 32) with red, green and blue in [0, 1], and labels (n,), positions in `CLASSES`.

    Raises
    ------
    ValueError
        If there are not so many images.
    DataUnavailableError
        If the files are neither in the data home nor to be had from the network.
    """
    return random_images(_arrays(), train=train, test=test, generator=generator)


def _arrays() -> dict[str, NDArray[np.uint8]]:
    path = prepared(PREPARED)
    if path is None:
        return read_binary_archive(fetch(PUBLISHED))
    arrays = dict(np.load(path))
    return {name: np.moveaxis(values, -1, 1) if name.startswith("x") else values for name, values in arrays.items()}


def read_binary_archive(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Read images (n, 3, 32, 32) and labels (n,) of both sets; a record is a label, then red, green, blue planes."""
    arrays = {}
    with tarfile.open(path) as archive:
        for part, batches in BATCHES.items():
            content = b"".join(archive.extractfile(f"{FOLDER}/{batch}").read() for batch in batches)
            records = np.frombuffer(content, np.uint8).reshape(-1, 1 + CHANNELS * SIZE**2)
            arrays[f"x_{part}"] = records[:, 1:].reshape(-1, CHANNELS, SIZE, SIZE)
            arrays[f"y_{part}"] = records[:, 0]
    return arrays
