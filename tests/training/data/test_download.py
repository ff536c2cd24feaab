import hashlib
import resource
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import tiny_data
from tests.training.data.test_extract import INSIDE, tar_file, tree, zip_file
from training.data import datasets, sources
from training.data import download as downloading
from training.data.download import Archive, download, fetch
from training.errors import DataError, UsageError

DATA = bytes(i * i % 251 for i in range(300_000))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRIES", 2), ("TIMEOUT", 5.0), ("PAUSE", 0.0)):
        monkeypatch.setattr(downloading, name, value)


@dataclass
class Publisher:
    """The files of the test server and its behaviour: each list is consumed request by request."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    resumes: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the connection is closed
    end: str = "close"  # of a cut connection; or "reset", or "stall" until the client gives up
    statuses: list[int] = field(default_factory=list)
    shift: int = 0  # added to the range that is sent
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def archive(self, name: str = "file.bin", data: bytes = DATA) -> Archive:
        self.files[name] = data
        return Archive(name, hashlib.sha256(data).hexdigest(), (f"{self.address}/{name}",))

    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


class Handler(BaseHTTPRequestHandler):
    publisher: Publisher

    def do_GET(self) -> None:
        publisher = self.publisher
        asked = self.headers.get("Range")
        publisher.requests.append((self.path, asked))
        data = publisher.files.get(self.path.rpartition("/")[2])
        if publisher.statuses or data is None:
            self.send_error(publisher.statuses.pop(0) if publisher.statuses else 404)
            return
        start = 0
        if asked and publisher.resumes:
            start = int(asked.removeprefix("bytes=").removesuffix("-")) + publisher.shift
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        part = data[start : start + (publisher.cuts or [len(data)]).pop(0)]
        self.wfile.write(part)
        if start + len(part) < len(data) and publisher.end == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif start + len(part) < len(data) and publisher.end == "stall":
            self.rfile.read(1)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.publisher = Publisher(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Handler.publisher
        server.shutdown()
        thread.join()


def test_a_file_arrives_whole_and_leaves_no_part(publisher: Publisher, tmp_path: Path) -> None:
    path = download(publisher.archive(), tmp_path)
    assert tree(tmp_path) == {"file.bin": DATA}
    assert path == tmp_path / "file.bin"


def test_a_whole_file_is_not_downloaded_again(publisher: Publisher, tmp_path: Path) -> None:
    archive = publisher.archive()
    (tmp_path / "file.bin").write_bytes(DATA)
    assert download(archive, tmp_path).read_bytes() == DATA
    assert publisher.requests == []


def test_a_file_with_a_wrong_hash_is_replaced(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"wrong")
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA


def test_a_cut_download_resumes_where_it_stopped(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = [100_000, 50_000]
    path = download(publisher.archive(), tmp_path)
    assert path.read_bytes() == DATA
    assert publisher.ranges() == [None, "bytes=100000-", "bytes=150000-"]


@pytest.mark.parametrize("end", ["close", "reset", "stall"])
def test_a_connection_that_always_ends_within_a_few_bytes_advances(
    end: str, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT", 0.2)
    publisher.end, publisher.cuts = end, [40_000] * 7
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA
    starts = [f"bytes={part * 40_000}-" for part in range(1, 8)]
    assert publisher.ranges() == [None, *starts]


def test_attempts_that_receive_bytes_do_not_count_as_failed(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.cuts = [10_000] * 20
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA


def test_a_later_call_resumes_where_an_earlier_one_failed(
    publisher: Publisher, tmp_path: Path
) -> None:
    archive = publisher.archive()
    publisher.cuts = [70_000, 0, 0]
    with pytest.raises(DataError, match=r"Cannot fetch file\.bin: .* 70,000 bytes are kept"):
        download(archive, tmp_path)
    assert download(archive, tmp_path).read_bytes() == DATA
    assert publisher.ranges()[-1] == "bytes=70000-"


def test_a_server_without_ranges_sends_the_whole_file_again(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.resumes = False
    publisher.cuts = [100_000]
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA
    assert publisher.ranges() == [None, "bytes=100000-"]


def test_a_server_without_ranges_that_always_cuts_is_given_up(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.resumes = False
    publisher.cuts = [100_000] * 9
    with pytest.raises(DataError, match="Cannot fetch file"):
        download(publisher.archive(), tmp_path)
    assert len(publisher.requests) == 3


def test_a_part_that_is_the_whole_file_is_accepted(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(DATA)
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA
    assert publisher.ranges() == [f"bytes={len(DATA)}-"]


def test_a_part_that_is_too_long_is_downloaded_again(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(DATA + b"more")
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA


def test_a_part_of_another_file_is_downloaded_again(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"of a file that has changed since")
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA
    assert publisher.ranges() == ["bytes=32-", None]


def test_a_range_other_than_requested_is_not_appended(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.shift = 5
    publisher.cuts = [100_000, len(DATA), 100_000, len(DATA)]
    monkeypatch.setattr(downloading, "TRIES", 5)
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA
    assert publisher.ranges() == [None, "bytes=100000-", None, "bytes=100000-", None]


def test_wrong_bytes_are_downloaded_once_more_then_reported(
    publisher: Publisher, tmp_path: Path
) -> None:
    archive = publisher.archive()
    publisher.files["file.bin"] = b"wrong" + DATA[5:]
    with pytest.raises(DataError, match=f"Expected: {archive.sha256}"):
        download(archive, tmp_path)
    assert publisher.ranges() == [None, None]
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_temporary_failure_is_retried(publisher: Publisher, tmp_path: Path, status: int) -> None:
    publisher.statuses = [status]
    assert download(publisher.archive(), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_permanent_failure_is_reported_at_once(
    publisher: Publisher, tmp_path: Path, status: int
) -> None:
    publisher.statuses = [status]
    with pytest.raises(DataError, match=rf"Cannot fetch file.bin: {status} Client Error"):
        download(publisher.archive(), tmp_path)
    assert len(publisher.requests) == 1


def test_the_next_address_is_tried(publisher: Publisher, tmp_path: Path) -> None:
    archive = publisher.archive()
    gone = f"{publisher.address}/gone"
    elsewhere = replace(archive, addresses=(gone, *archive.addresses))
    assert download(elsewhere, tmp_path).read_bytes() == DATA


def test_an_unreachable_host_is_reported(publisher: Publisher, tmp_path: Path) -> None:
    archive = replace(publisher.archive(), addresses=("http://127.0.0.1:1/file.bin",))
    with pytest.raises(DataError, match=r"127\.0\.0\.1.* [Rr]efused"):
        download(archive, tmp_path)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the system refuse to write more, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_reported_and_the_part_is_kept(publisher: Publisher, tmp_path: Path) -> None:
    archive = publisher.archive()
    with largest_file(100_000), pytest.raises(DataError, match="Expected: a folder with room"):
        download(archive, tmp_path)
    assert (tmp_path / "file.bin.part").stat().st_size == 100_000
    assert download(archive, tmp_path).read_bytes() == DATA
    assert publisher.ranges()[-1] == "bytes=100000-"


def test_a_folder_that_cannot_be_written_is_reported(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"Cannot write .*/file/Set: Not a directory"):
        fetch((publisher.archive(),), tmp_path / "file" / "Set")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_becomes_its_folder(publisher: Publisher, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set{suffix}"
    zip_file(path) if suffix == ".zip" else tar_file(path)
    fetch((publisher.archive(path.name, path.read_bytes()),), tmp_path / "data" / "Set")
    assert tree(tmp_path / "data") == {**INSIDE, ".downloads/Set.lock": b""}


@pytest.mark.parametrize("mirror", [None, ""])
def test_plain_files_become_a_folder(
    publisher: Publisher, tmp_path: Path, mirror: str | None
) -> None:
    archives = (publisher.archive("a.gz", b"a"), publisher.archive("b.gz", b"b"))
    fetch(archives, tmp_path / "Set", mirror=mirror)
    assert tree(tmp_path / "Set") == {"a.gz": b"a", "b.gz": b"b"}


def test_an_archive_with_a_path_outside_installs_nothing(
    publisher: Publisher, tmp_path: Path
) -> None:
    path = zip_file(tmp_path / "set.zip", {"Set/a": b"a", "../evil": b"evil"})
    with pytest.raises(DataError, match="Expected: plain files"):
        fetch((publisher.archive("set.zip", path.read_bytes()),), tmp_path / "data" / "Set")
    assert set(tree(tmp_path / "data")) == {
        ".downloads/Set.lock",
        ".downloads/set.zip",
    }


def test_an_archive_without_the_folder_is_reported(publisher: Publisher, tmp_path: Path) -> None:
    path = zip_file(tmp_path / "set.zip", {"Other/a": b"a"})
    with pytest.raises(DataError, match=r"set\.zip holds nothing under Set/"):
        fetch((publisher.archive("set.zip", path.read_bytes()),), tmp_path / "data" / "Set")


def test_a_cut_extraction_is_not_mistaken_for_the_set(publisher: Publisher, tmp_path: Path) -> None:
    left_over = tmp_path / ".Set.partial" / "Set" / "half.bin"
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    fetch((publisher.archive("a.gz", b"a"),), tmp_path / "Set")
    assert tree(tmp_path / "Set") == {"a.gz": b"a"}
    assert not left_over.exists()


def test_concurrent_fetches_download_once(publisher: Publisher, tmp_path: Path) -> None:
    archives = (publisher.archive("a.gz"), publisher.archive("b.gz", DATA[:1000]))
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(fetch, archives, tmp_path / "Set") for _ in range(2)]:
            done.result()
    assert tree(tmp_path / "Set") == {"a.gz": DATA, "b.gz": DATA[:1000]}
    assert sorted(path for path, _ in publisher.requests) == ["/a.gz", "/b.gz"]


def test_a_mirror_replaces_the_published_addresses(publisher: Publisher, tmp_path: Path) -> None:
    archive = replace(publisher.archive("a.gz", b"a"), addresses=("https://example.invalid/a.gz",))
    fetch((archive,), tmp_path / "Set", mirror=f"{publisher.address}/our/copies/")
    assert publisher.requests == [("/our/copies/a.gz", None)]


def test_a_mirror_must_be_a_web_address(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'file:///srv'\. Expected: an http or https address"):
        fetch((publisher.archive(),), tmp_path / "Set", mirror="file:///srv")


def test_loading_a_missing_set_fetches_it(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_data.write_mnist(tmp_path / "published")
    files = [path for path in (tmp_path / "published").iterdir() if path.suffix == ".gz"]
    archives = tuple(publisher.archive(path.name, path.read_bytes()) for path in files)
    tiny_source = replace(
        sources.SOURCES["mnist"],
        archives=archives,
        train=(tiny_data.TRAIN,) * 10,
        test=(tiny_data.TEST,) * 10,
    )
    monkeypatch.setitem(sources.SOURCES, "mnist", tiny_source)
    monkeypatch.setenv("DATA_MIRROR", publisher.address)
    first = datasets.load("mnist", data_dir=tmp_path / "data")
    again = datasets.load("mnist", data_dir=tmp_path / "data")
    assert first.content_hash == again.content_hash
    assert first.notes == ()
    assert len(publisher.requests) == 4


def test_every_published_archive_has_a_hash_and_an_https_address() -> None:
    archives = [archive for source in sources.SOURCES.values() for archive in source.archives]
    assert len(archives) == 6
    for archive in archives:
        assert len(bytes.fromhex(archive.sha256)) == 32
        assert archive.addresses
        for address in archive.addresses:
            assert address.startswith("https://")
            assert address.endswith(f"/{archive.file}")
