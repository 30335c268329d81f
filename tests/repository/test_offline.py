"""The network block itself: in this process, in child processes, and in notebook kernels."""

import socket
import subprocess
import sys
import threading

import nbformat
import pytest
from nbclient import NotebookClient

NOBODY = ("192.0.2.1", 80)  # an address reserved for documentation: nothing answers there

CHILD = """
import socket
def attempt(label, action):
    try:
        action()
        print(label, "allowed")
    except OSError as error:
        print(label, "refused" if "Tests run offline" in str(error) else error)

server = socket.create_server(("127.0.0.1", 0))
loopback = server.getsockname()
attempt("loopback", lambda: socket.create_connection(loopback, timeout=5))
attempt("localhost", lambda: socket.create_connection(("localhost", loopback[1]), timeout=5))
attempt("address", lambda: socket.create_connection(("192.0.2.1", 80), timeout=5))
attempt("lookup", lambda: socket.getaddrinfo("example.com", 80))
"""
EXPECTED = ["loopback allowed", "localhost allowed", "address refused", "lookup refused"]


def test_child_python_reaches_loopback_and_nothing_else():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True)
    assert done.stdout.splitlines() == EXPECTED, done.stderr


def test_grandchild_is_blocked_too():
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == EXPECTED, done.stderr


def test_notebook_kernel_is_blocked_and_still_runs(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CHILD)])
    path = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=path).execute()
    text = "".join(output.text for output in notebook.cells[0].outputs)
    assert text.splitlines() == EXPECTED


STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
METHODS = [
    (STREAM, "connect", ()),
    (STREAM, "connect_ex", ()),
    (DATAGRAM, "sendto", (b"x",)),
    (DATAGRAM, "sendto", (b"x", 0)),
]


@pytest.mark.parametrize(("kind", "method", "first"), METHODS)
def test_addresses_are_refused_here_with_a_sentence(kind, method, first):
    with socket.socket(type=kind) as client, pytest.raises(OSError, match="run offline: a connec"):
        getattr(client, method)(*first, NOBODY)


@pytest.mark.parametrize(("kind", "method", "first"), METHODS)
def test_names_given_to_a_socket_are_not_looked_up_here(kind, method, first):
    with socket.socket(type=kind) as client, pytest.raises(OSError, match="name 'example.com'"):
        getattr(client, method)(*first, ("example.com", 80))


@pytest.mark.skipif(not hasattr(socket.socket, "sendmsg"), reason="this system has no sendmsg")
def test_sendmsg_is_refused_here():
    with socket.socket(type=DATAGRAM) as client, pytest.raises(OSError, match="run offline"):
        client.sendmsg([b"x"], [], 0, NOBODY)


@pytest.mark.parametrize("host", ["example.com", b"example.com"])
@pytest.mark.parametrize("lookup", ["gethostbyname", "gethostbyname_ex", "gethostbyaddr"])
def test_names_are_not_looked_up_here(lookup, host):
    with pytest.raises(OSError, match="Tests run offline: the name 'example.com'"):
        getattr(socket, lookup)(host)
    with pytest.raises(OSError, match="Tests run offline: the name 'example.com'"):
        socket.getaddrinfo(host, 80)


def test_ipv6_addresses_are_refused_here():
    try:
        client = socket.socket(socket.AF_INET6)
    except OSError:
        pytest.skip("this system has no IPv6")
    with client, pytest.raises(OSError, match="Tests run offline"):
        client.connect(("2001:db8::1", 80))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no unix sockets")
def test_unix_sockets_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the full path may be longer than the system allows
    name = "s"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(name)
        server.listen()
        client.connect(name)
        client.sendall(b"hello")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(5) == b"hello"


def test_loopback_datagrams_work():
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        b.sendto(b"hello", a.getsockname())
        assert a.recv(5) == b"hello"


def test_threads_are_blocked_too():
    seen = []

    def connect():
        try:
            socket.create_connection(NOBODY, timeout=5)
        except OSError as error:
            seen.append(str(error))

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    assert "Tests run offline" in seen[0]


def test_children_get_the_quick_tier():
    code = "import os; print(os.environ['BARLOW_EDU_TIER'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "quick"
