"""Where a server hands its histories over to its next start: by default one file per application and address.

Decides the place. The content is the hub's (`hub/backends/handover.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from antiphon.hub.backends import handover

from .problem import Problem, WrongUsage


def choose(
    given: str | None, off: bool, app: str, folder: str, sockets: Sequence[socket.socket], *, lasting: bool
) -> str | None:
    """The file. None: histories end with the server. Raises `Problem` for a place that cannot be used.

    `app` is the served application and `folder` the place of its import: both are the same at the next start.
    `lasting`: so is the address. A port that was taken because it was free is not.
    """
    if given is None:
        return None if off or not lasting else _usual(app, folder, sockets)
    if off:
        raise WrongUsage("--state and --no-state exclude each other")
    path = Path(given).absolute()
    if path.is_dir():
        path /= _name(app, sockets if lasting else ())
    _check(path)
    return str(path)


def _usual(app: str, folder: str, sockets: Sequence[socket.socket]) -> str | None:
    """systemd's folder of the service, else the user's. None for a user without a home."""
    service = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if service:
        return str(Path(service) / _name(app, sockets))
    try:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    # Of a service the folder is the application's. Here are all of the user's, and many of them are called main:app.
    return str(Path(home) / "antiphon" / _name(f"{app} in {folder}", sockets))


def _name(app: str, sockets: Sequence[socket.socket]) -> str:
    addresses = sorted(str(sock.getsockname()) for sock in sockets)
    digest = hashlib.sha256("\n".join([app, *addresses]).encode()).hexdigest()[:12]
    words = re.sub(r"[^A-Za-z0-9]+", "-", app.partition(" ")[0]).strip("-")[:40]
    return f"{words}-{digest}.state"


def _check(path: Path) -> None:
    if not path.parent.is_dir():
        raise Problem(f"--state {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise Problem(f"--state {path}: the folder {path.parent} cannot be written to")
    try:
        foreign = handover.is_foreign(str(path))
    except OSError as error:
        raise Problem(f"--state {path}: {error.strerror}") from None
    if foreign:
        raise Problem(f"--state {path}: that is not of antiphon", "name a file that is not there yet")
