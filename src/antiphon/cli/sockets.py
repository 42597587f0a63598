"""Listening sockets, bound before anything starts, so that the error for a port in use names its owner.

Knows nothing of servers or applications.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from antiphon.shown import shown

from .problem import Problem

BACKLOG: Final = 2048
"""Connections that the kernel holds until they are taken: uvicorn's default."""

UNPRIVILEGED_PORTS_START: Final = 1024


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind and listen on every address that `host` names. Port 0 takes a free one, the same for all addresses."""
    try:
        addresses = dict.fromkeys(
            (family, address[0])
            for family, _, _, _, address in socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        )
    except socket.gaierror as error:
        raise Problem(
            f"--host {host}: {error.strerror}", "127.0.0.1 is this machine alone, 0.0.0.0 all networks"
        ) from None
    with ExitStack() as undo:
        sockets: list[socket.socket] = []
        for family, address in addresses:
            sock = _bind(family, str(address), port, optional=bool(sockets) or len(addresses) > 1)
            if sock is None:
                continue
            undo.callback(sock.close)
            port = sock.getsockname()[1]
            sock.listen(BACKLOG)
            sock.set_inheritable(True)
            sockets.append(sock)
        if not sockets:
            raise Problem(f"no address of {host} can be bound on this machine")
        undo.pop_all()
    return sockets


def listen_unix(path: str) -> socket.socket:
    """Bind a Unix socket that everybody may connect to. One left behind by a dead server is replaced."""
    if _is_dead_socket(path):
        Path(path).unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise Problem(f"--uds {path}: a server is listening there, or it is no socket") from None
        raise Problem(f"--uds {path}: {error.strerror or error}") from None
    Path(path).chmod(0o666)
    sock.listen(BACKLOG)
    sock.set_inheritable(True)
    return sock


def adopt(fd: int) -> socket.socket:
    """Take over a listening socket given by a supervisor (systemd, circus)."""
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise Problem(
            f"--fd {fd}: {error.strerror}",
            "--fd is the number of a listening socket that another process hands over",
            "from systemd it is 3, and the .socket unit is started before the service",
        ) from None
    sock.set_inheritable(True)
    return sock


def url(sock: socket.socket, *, secure: bool) -> str:
    """The URL that a person types to get there."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _bind(family: int, address: str, port: int, *, optional: bool) -> socket.socket | None:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if optional:
            return None  # a machine without IPv6 still resolves ::1
        raise
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRNOTAVAIL and optional:
            return None
        raise _cannot_bind(error, address, port) from None
    return sock


def _cannot_bind(error: OSError, address: str, port: int) -> Problem:
    if error.errno == errno.EADDRINUSE:
        owner = _owner(port)
        if owner is None:
            return Problem(f"port {port} is in use", f"choose another: --port {port + 1}, or --port 0 for any free one")
        pid, command = owner
        return Problem(
            f"port {port} is in use by process {pid}: {shown(command)}",
            f"stop it (kill {pid}), or choose another: --port {port + 1}, or --port 0 for any free one",
        )
    if error.errno == errno.EACCES and port < UNPRIVILEGED_PORTS_START:
        return Problem(f"port {port} needs more rights than you have", "ports from 1024 on are free: --port 8000")
    return Problem(f"cannot listen on {address} port {port}: {error.strerror}")


def _owner(port: int) -> tuple[int, str] | None:
    """Which process listens on a TCP port, where Linux tells."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for folder in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return int(folder.name), command[:100]
        except OSError:
            continue
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            is_listening = fields[3] == "0A"
            if is_listening and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _is_dead_socket(path: str) -> bool:
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
