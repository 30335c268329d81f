"""Downloads that fail in every way: the next host is asked, nothing wrong is kept, the remedy is told."""

import contextlib
import hashlib
import http.server
import socket
import tarfile
import threading

import numpy as np
import pytest

from barlow_edu.storage import downloads


class Host:
    """A web server on this machine: "good", "missing" (404), "wrong" (another file), "cut" (ends half-way), "noise"
    (does not speak HTTP), "silent" (never answers) or "stuck" (falls silent half-way)."""

    def __init__(self, content, manners="good"):
        self.content, self.manners, self.requests = content, manners, 0
        self.closed = threading.Event()
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                host.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def answer(self, request):
        self.requests += 1
        request.close_connection = True
        body = self.content if self.manners != "wrong" else b"x" * len(self.content)
        if self.manners == "noise":
            request.wfile.write(b"what?\r\n\r\n")
        elif self.manners == "silent":
            self.closed.wait(20)
        elif self.manners == "missing":
            request.send_error(404)
        else:
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            with contextlib.suppress(ConnectionError):  # the client has left
                half = self.manners in ("cut", "stuck")
                request.wfile.write(body[: len(body) // 2] if half else body)
                self.closed.wait(20 * (self.manners == "stuck"))

    def close(self):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The bytes of an archive with two files."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "hello.txt").write_text("hello")
    (folder / "noise").write_bytes(np.random.RandomState(0).bytes(20_000))
    with tarfile.open(folder / "a.tar.gz", "w:gz") as tar:
        tar.add(folder / "hello.txt", "hello.txt")
        tar.add(folder / "noise", "noise")
    return (folder / "a.tar.gz").read_bytes()


@pytest.fixture
def serve(archive, monkeypatch):
    """serve("missing", "good") starts hosts with these manners as the hosts of "toy"."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    hosts = []

    def start(*manners):
        hosts.extend(Host(archive, m) for m in manners)
        md5 = hashlib.md5(archive).hexdigest()
        urls = [host.url(f"toy-{i}.tar.gz" if i else "toy.tar.gz") for i, host in enumerate(hosts)]
        monkeypatch.setitem(downloads.ARCHIVES, "toy", (md5, *urls))
        return hosts

    yield start
    for host in hosts:
        host.close()


def fetched(folder):
    """Fetch "toy" into folder: its content is right and nothing half is left."""
    downloads.fetch_archive("toy", folder)
    names = sorted(p.name for p in folder.iterdir())
    return names == ["hello.txt", "noise", "toy.tar.gz"] and (
        (folder / "hello.txt").read_text() == "hello"
    )


def test_an_archive_is_downloaded_checked_and_unpacked_once(tmp_path, serve):
    first, mirror = serve("good", "good")
    assert fetched(tmp_path / "down")
    requests = first.requests
    assert fetched(tmp_path / "down")  # what is there is not asked for again
    assert first.requests == requests > 0
    assert mirror.requests == 0


@pytest.mark.parametrize("manners", ["missing", "wrong", "noise", "cut", "silent", "stuck"])
def test_the_mirror_takes_over_when_the_first_host_fails(tmp_path, serve, manners, monkeypatch):
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    first, mirror = serve(manners, "good")
    assert fetched(tmp_path / "down")
    assert first.requests > 0 and mirror.requests > 0


@pytest.mark.parametrize("manners", ["wrong", "cut"])
def test_a_wrong_checksum_is_refused_and_not_kept(tmp_path, serve, manners):
    serve(manners, manners)
    with pytest.raises(FileNotFoundError, match="corrupted"):
        downloads.fetch_archive("toy", tmp_path / "down")
    assert list((tmp_path / "down").iterdir()) == []


def test_a_wrong_archive_put_there_by_hand_is_refused_and_left_there(tmp_path, serve):
    serve("missing")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "toy.tar.gz").write_bytes(b"an error page, say")
    with pytest.raises(FileNotFoundError, match="that is there does not have this MD5 sum"):
        downloads.fetch_archive("toy", tmp_path / "down")
    assert (tmp_path / "down" / "toy.tar.gz").read_bytes() == b"an error page, say"


def test_a_wrong_archive_put_there_by_hand_is_replaced(tmp_path, serve):
    serve("good")
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "toy.tar.gz").write_bytes(b"an error page, say")
    assert fetched(tmp_path / "down")


def test_every_host_that_failed_is_named(tmp_path, serve):
    hosts = serve("missing", "noise")
    with pytest.raises(FileNotFoundError) as caught:
        downloads.fetch_archive("toy", tmp_path / "down")
    message = str(caught.value)
    assert all(f"127.0.0.1:{host.server.server_port}" in message for host in hosts)
    assert "put toy.tar.gz (MD5 " in message and f"into {tmp_path / 'down'}" in message


@pytest.mark.parametrize("manners", ["silent", "stuck"])
def test_a_host_that_falls_silent_is_left_and_named(tmp_path, serve, monkeypatch, manners):
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    [host] = serve(manners)
    with pytest.raises(FileNotFoundError, match=r"toy.tar.gz: no answer for 0.2 seconds\)"):
        downloads.fetch_archive("toy", tmp_path / "down")
    assert socket.getdefaulttimeout() is None and host.requests > 0
    assert list((tmp_path / "down").iterdir()) == []
