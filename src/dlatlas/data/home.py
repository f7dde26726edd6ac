"""The data home: where data sets too large for the repository are kept, each file checked before it is read.

The folder is ``$DLATLAS_DATA`` if that is set, else the user's cache. A file that is there and has the known checksum
is used; otherwise it is fetched from its publisher, with a progress bar. A file with another checksum is never read.
"""

import logging
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pooch

VARIABLE = "DLATLAS_DATA"
CONNECT_SECONDS, READ_SECONDS = 10, 60

logger = logging.getLogger(__name__)


class DataUnavailableError(RuntimeError):
    """A data file is neither in the data home, whole, nor to be had from its address."""


@dataclass(frozen=True)
class PublishedFile:
    """A file that its publisher offers for download.

    Parameters
    ----------
    name
        Its name in the data home.
    url
        Where it is published.
    checksum
        ``sha256:`` or ``md5:`` and the digest in hexadecimal, as published.
    """

    name: str
    url: str
    checksum: str


@dataclass(frozen=True)
class PreparedFile:
    """A file in the layout of this library that a user may put into the data home, and that nobody publishes.

    Parameters
    ----------
    name
        Its name in the data home.
    checksum
        ``sha256:`` and the digest in hexadecimal.
    """

    name: str
    checksum: str


def data_home() -> Path:
    """Give the folder where data files are kept; it need not exist."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("dlatlas"))


def prepared(file: PreparedFile) -> Path | None:
    """Give the path of a prepared file, or None if it is not in the data home.

    Raises
    ------
    DataUnavailableError
        If the file is there but corrupt.
    """
    path = data_home() / file.name
    if not path.exists():
        return None
    if not _matches(path, file.checksum):
        remedy = "Delete it or replace it; without it, the published files are used."
        raise DataUnavailableError(f"{_corrupt(path, file.checksum)}. {remedy}")
    return path


def fetch(file: PublishedFile) -> Path:
    """Give the path of a published file, downloaded first if it is missing or corrupt.

    Raises
    ------
    DataUnavailableError
        If the file is missing or corrupt and cannot be downloaded; the message names file, folder and address.
    """
    path = data_home() / file.name
    if not path.exists():
        problem = f"{file.name} is not in the data home {path.parent}"
    elif _matches(path, file.checksum):
        return path
    else:
        problem = _corrupt(path, file.checksum)
        logger.warning("%s; fetching it again from %s", problem, file.url)
    try:
        return _download(file, path)
    except (OSError, ValueError) as error:
        remedy = f"Put the file there, or set {VARIABLE} to the folder that has it."
        message = f"{problem}, and could not be fetched from {file.url} ({_brief(error)}). {remedy}"
        raise DataUnavailableError(message) from error


def _download(file: PublishedFile, path: Path) -> Path:
    """Download to a temporary file, check it, and only then move it into place."""
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
    return Path(pooch.retrieve(file.url, file.checksum, path.name, path.parent, downloader=downloader))


def _matches(path: Path, checksum: str) -> bool:
    return _digest(path, checksum) == checksum.partition(":")[2]


def _digest(path: Path, checksum: str) -> str:
    return pooch.file_hash(str(path), alg=checksum.partition(":")[0])


def _corrupt(path: Path, checksum: str) -> str:
    kind, _, expected = checksum.partition(":")
    return f"{path} is corrupt: its {kind} checksum should be {expected}, but is {_digest(path, checksum)}"


def _brief(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder=" …")
