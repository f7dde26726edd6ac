"""Reading the published formats, on tiny files made here; and the real files where the data home has them."""

import codecs
import gzip
import io
import pickle
import struct
import tarfile
from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse
import torch

from dlatlas.data import cifar10 as cifar10_module
from dlatlas.data import cora as cora_module
from dlatlas.data import etth1 as etth1_module
from dlatlas.data import mnist as mnist_module
from dlatlas.data import tinyshakespeare as tinyshakespeare_module
from dlatlas.data.cifar10 import CLASSES, cifar10, read_binary_archive
from dlatlas.data.cora import cora, read_planetoid
from dlatlas.data.etth1 import COLUMNS, etth1
from dlatlas.data.home import DataUnavailableError, data_home
from dlatlas.data.images import random_images
from dlatlas.data.mnist import mnist, read_idx
from dlatlas.data.tinyshakespeare import decode, encode, tinyshakespeare


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def stored(images=20, channels=3, size=4):
    """Images whose every byte is their number, with their number as label, so that a mix-up shows."""
    numbers = np.arange(images, dtype=np.uint8)
    pictures = np.broadcast_to(numbers[:, None, None, None], (images, channels, size, size))
    return {"x_train": pictures, "y_train": numbers, "x_test": pictures[:5], "y_test": numbers[:5]}


def needs(name):
    return pytest.mark.skipif(not (data_home() / name).is_file(), reason=f"the data home has no {name}")


def test_idx_files_are_read(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, size=(5, 4, 3), dtype=np.uint8)
    (tmp_path / "images.gz").write_bytes(idx(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "images.gz"), array)


def test_idx_files_of_another_type_are_refused(tmp_path):
    (tmp_path / "floats.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 13, 1, 0)))
    with pytest.raises(ValueError, match=r"floats.gz must hold unsigned bytes .* begins with 00000d01"):
        read_idx(tmp_path / "floats.gz")


def test_published_mnist_has_the_prepared_layout(tmp_path, monkeypatch):
    """The four archives and mnist.npz give the same arrays, so the same draw."""
    arrays = {
        name: np.random.default_rng(0).integers(0, 10, size=shape, dtype=np.uint8)
        for name, shape in (("x_train", (6, 28, 28)), ("y_train", 6), ("x_test", (4, 28, 28)), ("y_test", 4))
    }
    for name, file in mnist_module.PUBLISHED.items():
        (tmp_path / file.name).write_bytes(idx(arrays[name]))
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setattr(mnist_module, "fetch", lambda file: tmp_path / file.name)
    draws = []
    for path in (None, tmp_path / "mnist.npz"):
        monkeypatch.setattr(mnist_module, "prepared", lambda _, path=path: path)
        draws.append(mnist(train=5, test=4, generator=seeded()))
    assert draws[0].x_train.shape == (5, 1, 28, 28)
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))


def cifar_archive(path, images):
    """The official layout: five training batches and a test batch of the same size, and files that do not matter."""
    rng = np.random.default_rng(0)
    records = rng.integers(0, 10, size=(6, images, 1 + 3072), dtype=np.uint8)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    with tarfile.open(path, "w:gz") as archive:
        for name, content in [("readme.html", b"hello"), *zip(names, (r.tobytes() for r in records), strict=True)]:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return records


def test_cifar_archives_are_read(tmp_path):
    records = cifar_archive(tmp_path / "cifar.tar.gz", images=3)
    arrays = read_binary_archive(tmp_path / "cifar.tar.gz")
    assert arrays["x_train"].shape == (15, 3, 32, 32)
    assert arrays["x_test"].shape == (3, 3, 32, 32)
    np.testing.assert_array_equal(arrays["y_train"], records[:5, :, 0].ravel())
    np.testing.assert_array_equal(arrays["y_test"], records[5, :, 0])
    red, green, blue = records[1, 2, 1:].reshape(3, 32, 32)
    np.testing.assert_array_equal(arrays["x_train"][5], [red, green, blue])


def test_published_cifar_has_the_prepared_layout(tmp_path, monkeypatch):
    """The archive and an npz file with channels last give the same draw."""
    cifar_archive(tmp_path / "cifar.tar.gz", images=3)
    arrays = read_binary_archive(tmp_path / "cifar.tar.gz")
    last = {name: np.moveaxis(values, 1, -1) if values.ndim == 4 else values for name, values in arrays.items()}
    np.savez(tmp_path / "subset.npz", **last)
    monkeypatch.setattr(cifar10_module, "fetch", lambda _: tmp_path / "cifar.tar.gz")
    draws = []
    for path in (None, tmp_path / "subset.npz"):
        monkeypatch.setattr(cifar10_module, "prepared", lambda _, path=path: path)
        draws.append(cifar10(train=10, test=3, generator=seeded()))
    assert draws[0].x_train.shape == (10, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))


def test_drawn_images_keep_their_labels_and_do_not_repeat():
    split = random_images(stored(), train=20, test=3, generator=seeded())
    assert torch.equal((split.x_train[:, 0, 0, 0] * 255).round().long(), split.y_train)
    assert torch.equal(split.y_train.sort().values, torch.arange(20))
    assert not torch.equal(split.y_train, torch.arange(20))
    assert split.x_test.shape == (3, 3, 4, 4)
    assert torch.equal(split.y_train, random_images(stored(), train=20, test=3, generator=seeded()).y_train)


@pytest.mark.parametrize(("train", "test", "message"), [(21, 1, "train .* 20 images .* 21"), (1, 0, "test .* 5 .* 0")])
def test_more_images_than_there_are_are_refused(train, test, message):
    with pytest.raises(ValueError, match=message):
        random_images(stored(), train=train, test=test, generator=seeded())


@pytest.fixture
def planetoid(tmp_path, monkeypatch):
    """Four known papers and three test papers that are listed out of order; the feature of a paper is its number."""
    features, labels = scipy.sparse.csr_matrix(np.eye(7)), np.eye(7, dtype=np.int32)
    test = [6, 4, 5]
    graph = defaultdict(list, {0: [1, 1], 1: [0, 1], 5: [2], 2: [5]})
    objects = {"allx": features[:4], "ally": labels[:4], "tx": features[test], "ty": labels[test], "graph": graph}
    # Python 3 writes bytes as a call of codecs.encode, which Python 2, that wrote the published files, does not.
    monkeypatch.setitem(cora_module._PlainUnpickler.ALLOWED, ("_codecs", "encode"), codecs.encode)
    for name, value in objects.items():
        (tmp_path / name).write_bytes(old_names(pickle.dumps(value, protocol=2)))
    (tmp_path / "test.index").write_text("".join(f"{node}\n" for node in test))
    return {name: tmp_path / name for name in (*objects, "test.index")}


def old_names(pickled):
    """Call classes by the names that they had when the files were published."""
    for new, old in (("numpy._core.multiarray", "numpy.core.multiarray"), ("scipy.sparse._csr", "scipy.sparse.csr")):
        pickled = pickled.replace(f"c{new}\n".encode(), f"c{old}\n".encode())
    return pickled


def test_planetoid_files_are_read(planetoid):
    arrays = read_planetoid(planetoid)
    assert sorted(zip(arrays["feature_row"], arrays["feature_col"], strict=True)) == [(n, n) for n in range(7)]
    assert arrays["labels"].tolist() == list(range(7))
    assert arrays["edges"].tolist() == [[0, 1], [2, 5]]
    assert arrays["test_index"].tolist() == [4, 5, 6]
    assert arrays["num_features"] == 7


def test_a_pickle_that_wants_to_run_something_is_refused(planetoid):
    planetoid["graph"].write_bytes(pickle.dumps(print))
    with pytest.raises(pickle.UnpicklingError, match="print has no place in a data file"):
        read_planetoid(planetoid)


def test_text_round_trip():
    text = encode("to be, or not")
    assert text.alphabet == " ,benort"
    assert text.tokens[:3].tolist() == [7, 5, 0]
    assert decode(text) == "to be, or not"


LOADERS = {
    "mnist": (mnist_module, lambda: mnist(train=1, test=1, generator=seeded()), "train-images-idx3-ubyte.gz"),
    "cifar10": (cifar10_module, lambda: cifar10(train=1, test=1, generator=seeded()), "cifar-10-binary.tar.gz"),
    "cora": (cora_module, cora, "ind.cora.allx"),
    "etth1": (etth1_module, etth1, "ETTh1.csv"),
    "tinyshakespeare": (tinyshakespeare_module, tinyshakespeare, "tinyshakespeare.txt"),
}


@pytest.mark.parametrize(("module", "load", "name"), LOADERS.values(), ids=LOADERS.keys())
def test_without_file_and_network_every_loader_says_what_is_missing_where(module, load, name, tmp_path, monkeypatch):
    def no_network(*arguments, **settings):
        raise OSError("Network is unreachable")

    monkeypatch.setenv("DLATLAS_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.HTTPDownloader.__call__", no_network)
    with pytest.raises(DataUnavailableError) as raised:
        load()
    published = module.PUBLISHED
    url = published["x_train"].url if name.startswith("train") else None
    url = url or (published["allx"].url if isinstance(published, dict) else published.url)
    assert f"{name} is not in the data home {tmp_path}" in str(raised.value)
    assert url in str(raised.value)
    assert "Network is unreachable" in str(raised.value)


@pytest.mark.parametrize("module", [mnist_module, cifar10_module, cora_module], ids=["mnist", "cifar10", "cora"])
def test_a_corrupt_prepared_file_is_never_read(module, tmp_path, monkeypatch):
    monkeypatch.setenv("DLATLAS_DATA", str(tmp_path))
    (tmp_path / module.PREPARED.name).write_bytes(b"not what it should be")
    with pytest.raises(DataUnavailableError, match=f"{module.PREPARED.name} is corrupt"):
        LOADERS[module.__name__.rpartition(".")[2]][1]()


@needs("mnist.npz")
def test_real_mnist():
    split = mnist(train=60_000, test=10_000, generator=seeded())
    assert split.x_train.shape == (60_000, 1, 28, 28)
    assert split.y_train.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert split.y_test.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The published mean and standard deviation of the grey levels.
    assert split.x_train.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert split.x_train.std().item() == pytest.approx(0.3081, abs=1e-4)


@needs("cifar10_subset.npz")
def test_real_cifar10():
    split = cifar10(train=10_000, test=2_000, generator=seeded())
    assert split.x_train.shape == (10_000, 3, 32, 32)
    assert split.y_train.bincount().tolist() == [1000] * len(CLASSES)
    # The published channel means of all 50,000 images, which a fifth of them matches roughly.
    means = split.x_train.mean((0, 2, 3))
    torch.testing.assert_close(means, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.01, rtol=0)


@needs("cora.npz")
def test_real_cora():
    graph = cora()
    assert graph.x.shape == (2708, 1433)
    assert graph.x.sum() == 49_216
    assert graph.edges.shape == (5278, 2)
    assert (graph.edges[:, 0] < graph.edges[:, 1]).all()
    assert graph.y.bincount().tolist() == [351, 217, 418, 818, 426, 298, 180]
    assert graph.y[graph.train].bincount().tolist() == [20] * 7
    assert (len(graph.train), len(graph.validation), len(graph.test)) == (140, 500, 1000)


@needs("ETTh1.csv")
def test_real_etth1():
    hours = etth1()
    assert hours.shape == (17_420, len(COLUMNS))
    torch.testing.assert_close(hours[0, -1], torch.tensor(30.5310001373291))


@needs("tinyshakespeare.txt")
def test_real_tinyshakespeare():
    text = tinyshakespeare()
    assert len(text.tokens) == 1_115_394
    assert len(text.alphabet) == 65
    assert decode(text._replace(tokens=text.tokens[:14])) == "First Citizen:"
