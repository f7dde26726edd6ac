"""MNIST: 70,000 handwritten digits, 28×28 pixels, from the data home."""

import gzip
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dlatlas.data.home import PreparedFile, PublishedFile, fetch, prepared
from dlatlas.data.images import random_images
from dlatlas.data.split import Split
from dlatlas.typed import typed

PREPARED = PreparedFile("mnist.npz", "sha256:398e4d7ac747a94dc016d329c91fbe14107208666cf85949a74aa585c1fed86e")
ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist/"
PUBLISHED = {
    array: PublishedFile(name, ADDRESS + name, f"md5:{md5}")
    for array, name, md5 in (
        ("x_train", "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("y_train", "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("x_test", "t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        ("y_test", "t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    )
}
UNSIGNED_BYTES = 8


@typed
def mnist(*, train: int, test: int, generator: torch.Generator) -> Split:
    """Draw images at random from the training and from the test set.

    Parameters
    ----------
    train, test
        Number of images from each set, at most 60,000 and 10,000.
    generator
        Source of the choice and the order.

    Returns
    -------
    Split
        Images (n, 1, 28, 28) with grey levels in [0, 1], and labels (n,).

    Raises
    ------
    ValueError
        If there are not so many images.
    DataUnavailableError
        If the files are neither in the data home nor to be had from the network.
    """
    arrays = _arrays()
    images = {name: arrays[name][:, None] for name in ("x_train", "x_test")}
    return random_images({**arrays, **images}, train=train, test=test, generator=generator)


def _arrays() -> dict[str, NDArray[np.uint8]]:
    path = prepared(PREPARED)
    if path is not None:
        return dict(np.load(path))
    return {name: read_idx(fetch(file)) for name, file in PUBLISHED.items()}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped array of bytes in IDX format: two zeros, type, number of dimensions, big-endian sizes, data."""
    with gzip.open(path) as stream:
        content = stream.read()
    kind, dimensions = content[2], content[3]
    if content[:2] != b"\0\0" or kind != UNSIGNED_BYTES:
        raise ValueError(f"{path} must hold unsigned bytes in the IDX format, but begins with {content[:4].hex()}")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
