"""Ports on loopback: which are free, and which to take."""

import secrets
import socket
import time

from deploy.stack.errors import StackError

# Below the range from which Linux takes the ports of outgoing connections (32768 and up), so that no
# connection takes a server's port while the server is down for a moment.
LOWEST, HIGHEST = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now, on loopback and on every address."""
    return all(_can_bind(address, port) for address in ("127.0.0.1", "0.0.0.0"))  # noqa: S104 - a test, never served


def falls_free(port: int, *, within_s: float = 3.0) -> bool:
    """Whether `port`, which was ours, is free soon: a process that was killed leaves its sockets a moment later."""
    until = time.monotonic() + within_s
    while not is_free(port):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def free_port() -> int:
    """A port that nobody listens on, picked by chance so that two stacks starting together rarely meet."""
    for _ in range(200):
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        if is_free(port):
            return port
    raise StackError(f"no free port between {LOWEST} and {HIGHEST} on this machine: stop some servers")


def is_listening(host: str, port: int, *, timeout_s: float = 1.0) -> bool:
    """Whether something accepts TCP connections at `host`:`port`."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def _can_bind(address: str, port: int) -> bool:
    with socket.socket() as probe:
        # Servers do the same: a port in TIME_WAIT is free for them.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
