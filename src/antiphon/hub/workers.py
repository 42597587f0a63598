"""Is this process one of several workers of one server? Then a hub in memory reaches only a part of the clients.

Knows how the servers that Python has start their workers, and asks nobody outside of this process. A server it does not
know has one worker, as far as it can tell.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from typing import Any, Final

from .environment import ENVIRONMENT

logger: Final = logging.getLogger("antiphon.hub")

_warned: set[int] = set()
"""The process that was warned. A forked one is another."""


def warn_of_others(url: str) -> None:
    """Warn once per process that a hub in one process, at this URL, misses other workers, with the remedy."""
    if os.getpid() in _warned:
        return
    if os.environ.get(ENVIRONMENT):
        remedy = "leave the URL out for relay://"
    elif (count := _workers()) > 1:
        remedy = (
            f"each of the {count} processes has a hub of its own, and a message reaches the clients of one. Start them "
            f"with `antiphon run --workers {count}`, or with `antiphon relay ` before the command you start them with "
            "now, and leave the hub's URL out; or give it a redis:// URL"
        )
    else:
        return
    _warned.add(os.getpid())
    logger.warning("the hub's %s does not reach the other workers of this server: %s", url, remedy)


def _workers() -> int:
    """How many processes serve beside this one, it included."""
    return max(_of_multiprocessing(), _of_gunicorn())


def _of_multiprocessing() -> int:
    """uvicorn and hypercorn start each worker as a process with their configuration. A reloader's process does not
    count."""
    if multiprocessing.parent_process() is None:
        return 1
    config = getattr(multiprocessing.current_process(), "_kwargs", {}).get("config")
    workers = getattr(config, "workers", 1)
    reloads = getattr(config, "should_reload", False) or getattr(config, "use_reloader", False)
    return workers if isinstance(workers, int) and not reloads else 1


def _of_gunicorn() -> int:
    """gunicorn forks: below a worker's frames stands the arbiter that forked it, which knows the number of workers."""
    if "gunicorn.arbiter" not in sys.modules:
        return 1
    frame: Any = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_globals.get("__name__") == "gunicorn.arbiter":
            workers = getattr(frame.f_locals.get("self"), "num_workers", None)
            if isinstance(workers, int):
                return workers
        frame = frame.f_back
    return 1
