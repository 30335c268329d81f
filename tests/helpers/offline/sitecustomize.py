"""Keep every test offline: only loopback and unix sockets may be used.

Python imports `sitecustomize` at start, so with this folder on PYTHONPATH the rule also holds in
child processes: notebook kernels, command-line tests, data-loader workers. An audit hook sees
every use of the socket module and cannot be undone.
"""

import ipaddress
import socket
import sys

LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
SENDS = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def check_host(host, lookup=False):
    """Raise OSError unless `host` is this machine. Looking up a literal address asks nobody."""
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise OSError(f"Tests run offline: the name {host!r} must not be looked up.") from None
    if not (lookup or address.is_loopback):
        raise OSError(f"Tests run offline: a connection to {host} was refused, use 127.0.0.1.")


def refuse_network(event, args):
    """The audit hook."""
    if event in LOOKUPS:
        check_host(args[0], lookup=True)
    elif event in SENDS and args[0].family in (socket.AF_INET, socket.AF_INET6) and args[1]:
        check_host(args[1][0])


def check_first(method):
    """Wrap a socket method whose C code would look the name up before the audit hook runs."""

    def checked(self, *args):
        refuse_network("socket.connect", (self, args[-1]))
        return method(self, *args)

    return checked


sys.addaudithook(refuse_network)
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, check_first(getattr(socket.socket, name)))
