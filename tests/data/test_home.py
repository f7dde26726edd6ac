"""The data home: whole files are used, missing ones fetched, corrupt ones never read; and what the errors say."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from dlatlas.data.home import DataUnavailableError, PreparedFile, PublishedFile, data_home, fetch, prepared

CONTENT = b"the content of the file\n"


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "data home"
    folder.mkdir()
    monkeypatch.setenv("DLATLAS_DATA", str(folder))
    return folder


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A web server on this machine: what is put into its folder is published, and it counts what was asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "published"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            self.server.requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.requests = folder, []
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def file(publisher):
    (publisher.folder / "remote.bin").write_bytes(CONTENT)
    return PublishedFile("local.bin", f"{publisher.address}/remote.bin", sha256(CONTENT))


@pytest.fixture
def unreachable(publisher):
    """A file at an address where nobody listens any more."""
    publisher.shutdown()
    publisher.server_close()
    return PublishedFile("local.bin", f"{publisher.address}/remote.bin", sha256(CONTENT))


def test_a_missing_file_is_fetched_once(home, publisher, file):
    assert fetch(file) == home / "local.bin"
    assert fetch(file).read_bytes() == CONTENT
    assert len(publisher.requests) == 1


def test_the_download_shows_its_progress(home, file, capsys):
    fetch(file)
    assert "100%" in capsys.readouterr().err


def test_md5_sums_are_checked_too(home, publisher, file):
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert fetch(PublishedFile(file.name, file.url, f"md5:{md5}")).read_bytes() == CONTENT
    with pytest.raises(DataUnavailableError, match=r"local\.bin is corrupt: its md5 checksum should be 0000"):
        fetch(PublishedFile(file.name, file.url, "md5:" + 32 * "0"))


def test_a_whole_file_needs_no_network(home, unreachable):
    (home / "local.bin").write_bytes(CONTENT)
    assert fetch(unreachable).read_bytes() == CONTENT


def test_a_folder_that_does_not_exist_is_made(home, file):
    home.rmdir()
    assert fetch(file).read_bytes() == CONTENT


def test_a_corrupt_file_is_named_and_fetched_again(home, file, caplog):
    (home / "local.bin").write_bytes(CONTENT[:5])
    assert fetch(file).read_bytes() == CONTENT
    assert f"{home / 'local.bin'} is corrupt" in caplog.text
    assert file.url in caplog.text


def test_without_network_the_error_names_file_folder_and_address(home, unreachable):
    with pytest.raises(DataUnavailableError) as raised:
        fetch(unreachable)
    message = str(raised.value)
    assert f"local.bin is not in the data home {home}" in message
    assert unreachable.url in message
    assert "DLATLAS_DATA" in message
    assert "\n" not in message


def test_a_corrupt_file_without_network_is_refused_by_name(home, unreachable):
    (home / "local.bin").write_bytes(b"corrupt")
    with pytest.raises(DataUnavailableError) as raised:
        fetch(unreachable)
    message = str(raised.value)
    assert f"{home / 'local.bin'} is corrupt: its sha256 checksum should be {sha256(CONTENT)[7:]}" in message
    assert sha256(b"corrupt")[7:] in message
    assert unreachable.url in message


def test_a_corrupt_download_is_refused_and_not_kept(home, publisher, file):
    (publisher.folder / "remote.bin").write_bytes(b"something else")
    with pytest.raises(DataUnavailableError, match=r"local.bin is not in .* could not be fetched from .* hash"):
        fetch(file)
    assert list(home.iterdir()) == []


def test_a_missing_address_is_an_error_that_names_it(home, publisher):
    gone = PublishedFile("local.bin", f"{publisher.address}/gone.bin", sha256(CONTENT))
    with pytest.raises(DataUnavailableError, match=r"gone.bin .*404"):
        fetch(gone)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path, monkeypatch, file):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DLATLAS_DATA", str(tmp_path / "file" / "folder"))
    with pytest.raises(DataUnavailableError, match=str(tmp_path / "file" / "folder")):
        fetch(file)


def test_a_prepared_file_is_used_if_whole(home):
    file = PreparedFile("mine.npz", sha256(CONTENT))
    assert prepared(file) is None
    (home / "mine.npz").write_bytes(CONTENT)
    assert prepared(file) == home / "mine.npz"


def test_a_corrupt_prepared_file_is_refused_by_name(home):
    (home / "mine.npz").write_bytes(b"corrupt")
    with pytest.raises(DataUnavailableError, match=r"mine\.npz is corrupt: its sha256 checksum should be .* Delete it"):
        prepared(PreparedFile("mine.npz", sha256(CONTENT)))


def test_the_home_is_the_users_cache_unless_chosen(monkeypatch):
    monkeypatch.delenv("DLATLAS_DATA", raising=False)
    assert data_home().name == "dlatlas"
    assert data_home().is_absolute()
    monkeypatch.setenv("DLATLAS_DATA", "~/atlas")
    assert data_home() == Path.home() / "atlas"
