"""The gateway's port: shared by the gateways of one node, and by nobody else. Knows sockets and processes; not HTTP."""

from __future__ import annotations

import os
import socket

from hfray.errors import SpecError

BACKLOG = 2048
_ANY = frozenset({"0.0.0.0", "::"})
_PROXY = (
    ". It is Ray Serve's own proxy, which hfray does without; if RAY_SERVE_THROUGHPUT_OPTIMIZED or "
    "RAY_SERVE_ENABLE_DIRECT_INGRESS is set, unset it"
)


def listen(host: str, port: int) -> socket.socket:
    """A socket that the gateways of one cluster may have at once. Raises SpecError for an address that is taken or not
    there."""
    found = _bound(host, port, shared=True)
    try:
        # The system lets all programs of one user share a port and would give each a part of the requests. Looked at
        # before it gives us any, and again for one that came at the same moment.
        _refuse_strangers(host, found.getsockname()[1])
        found.listen(BACKLOG)
        _refuse_strangers(host, found.getsockname()[1])
    except SpecError:
        found.close()
        raise
    found.setblocking(False)
    return found


def check_free(host: str, port: int) -> None:
    """Before anything is started. Raises SpecError for an address that somebody listens on, or that is not there."""
    _bound(host, port, shared=False).close()


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise SpecError(
            f"gateway: {host}:{port} cannot be listened on ({error.strerror}); choose another port"
        ) from None
    return found


def _refuse_strangers(host: str, port: int) -> None:
    import psutil

    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:  # macOS tells nobody but root
        return
    pids = {
        each.pid
        for each in sockets
        if each.pid is not None
        and each.status == psutil.CONN_LISTEN
        and each.laddr
        and each.laddr.port == port
        and (each.laddr.ip == host or _ANY & {each.laddr.ip, host})
    }
    for pid in pids - {os.getpid()}:
        title, cluster = _known(pid)
        if title and not (cluster and title.startswith("ray::ServeReplica:") and cluster == _known(os.getpid())[1]):
            raise SpecError(
                f"gateway: {host}:{port} is listened on by process {pid}, {title[:60]}; end it or choose another port"
                + (_PROXY if "ProxyActor" in title else "")
            )


def _known(pid: int) -> tuple[str, str]:
    """(what a process calls itself, "" once it is gone; the id of the Ray cluster that it works for, "" for none)."""
    import psutil

    try:
        process = psutil.Process(pid)
        title = " ".join(" ".join(process.cmdline()).split())
        raylet = process.parent()
        arguments = [] if raylet is None else raylet.cmdline()
    except psutil.Error:
        return "", ""
    return title, next((each for each in arguments if each.startswith("--cluster-id=")), "")
