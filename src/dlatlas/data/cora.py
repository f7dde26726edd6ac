"""Cora: 2,708 papers on machine learning, their words and their citations, from the data home."""

import io
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dlatlas.data.home import PreparedFile, PublishedFile, fetch, prepared

PREPARED = PreparedFile("cora.npz", "sha256:7d3d178d428de399501e3b97629a028c6e0291b82a8a25741c30ee24d899c861")
ADDRESS = "https://raw.githubusercontent.com/kimiyoung/planetoid/af6abf468a772cc055bec88c52e4d6f51b7c37e3/data/"
PUBLISHED = {
    part: PublishedFile(f"ind.cora.{part}", f"{ADDRESS}ind.cora.{part}", f"sha256:{sha256}")
    for part, sha256 in (
        ("allx", "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543"),
        ("ally", "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71"),
        ("tx", "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a"),
        ("ty", "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad"),
        ("graph", "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d"),
        ("test.index", "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875"),
    )
}
TRAIN, VALIDATION = 140, 500


class Graph(NamedTuple):
    """An undirected graph with features and labels on its nodes, and the nodes to train, validate and test on."""

    x: Float[Tensor, "n d"]
    y: Int[Tensor, "n"]
    edges: Int[Tensor, "e 2"]
    train: Int[Tensor, "a"]
    validation: Int[Tensor, "b"]
    test: Int[Tensor, "c"]


def cora() -> Graph:
    """Read the citation graph with the split of Planetoid.

    Returns
    -------
    Graph
        Words x (2708, 1433), 1 where a paper has the word; subject y (2708,) of 7; edges (5278, 2), each once with the
        smaller node first; 140 nodes for training, 500 for validation, 1,000 for testing.

    Raises
    ------
    DataUnavailableError
        If the files are neither in the data home nor to be had from the network.
    """
    path = prepared(PREPARED)
    arrays = read_planetoid({part: fetch(file) for part, file in PUBLISHED.items()}) if path is None else np.load(path)
    x = torch.zeros(len(arrays["labels"]), int(arrays["num_features"]))
    x[arrays["feature_row"], arrays["feature_col"]] = 1
    parts = ("labels", "edges", "train_index", "val_index", "test_index")
    return Graph(x, *(torch.as_tensor(arrays[part]).long() for part in parts))


def read_planetoid(paths: dict[str, Path]) -> dict[str, NDArray]:
    """Read the published files: papers 0 to 1707 (all), and the test papers in the order of ``test.index``."""
    test = np.loadtxt(paths["test.index"], dtype=np.int64)
    parts = {name: _unpickle(path) for name, path in paths.items() if name != "test.index"}
    known = parts["allx"].shape[0]
    order = np.argsort(np.concatenate([np.arange(known), test]))
    features = scipy.sparse.vstack([parts["allx"], parts["tx"]]).tocsr()[order].tocoo()
    labels = np.concatenate([parts["ally"], parts["ty"]])[order].argmax(1)
    edges = {(min(a, b), max(a, b)) for a, neighbours in parts["graph"].items() for b in neighbours if a != b}
    return {
        "feature_row": features.row,
        "feature_col": features.col,
        "num_features": np.int64(features.shape[1]),
        "labels": labels,
        "edges": np.array(sorted(edges)),
        "train_index": np.arange(TRAIN),
        "val_index": np.arange(TRAIN, TRAIN + VALIDATION),
        "test_index": np.sort(test),
    }


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays, sparse matrices, lists and dictionaries, and nothing else that a pickle may ask for."""

    ALLOWED = {
        ("__builtin__", "list"): list,
        ("collections", "defaultdict"): defaultdict,
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("scipy.sparse.csr", "csr_matrix"): scipy.sparse.csr_matrix,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self.ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in a data file") from None


def _unpickle(path: Path) -> Any:
    return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
