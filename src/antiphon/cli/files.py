"""The limit of open files of this process: each connection is one."""

from __future__ import annotations

from typing import Final

from .problem import Problem

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

FEW: Final = 4096
"""Files that a server on the way to production has outgrown; above them, an operator who set the limit meant it."""

MANY: Final = 1 << 20
"""Where the hard limit is none, or larger."""

SURELY: Final = 10240
"""What macOS allows, whose hard limit says that there is none."""


def allow(needed: int = MANY) -> int | None:
    """Raise the soft limit to as many as that, as far as the hard one lets us. Returns the limit, None for none.

    The soft limit is 1024 on most systems, for programs that use `select`, which no server does.
    """
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft == resource.RLIM_INFINITY:
        return None
    for limit in (most, min(most, SURELY)):
        if soft >= limit:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (ValueError, OSError):  # the system's own limit is below the hard one
            continue
        return limit
    return soft


def require(connections: int, spare: int) -> None:
    """Room for so many connections. Raises `Problem`."""
    needed = connections + spare
    allowed = allow(needed)
    if allowed is not None and allowed < needed:
        raise Problem(
            f"{connections} connections are more open files than the {allowed} this process may have",
            f"ulimit -n {needed}, in a shell that may raise it; or several commands with fewer connections",
        )
