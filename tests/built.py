"""Things that tests build once and keep: inside the checkout, under a lock, complete or not at all.

Knows nothing of the things built. `.cache/` is not in git, so a fresh clone starts without any of it, and nothing
outside of the checkout stands in for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).parents[1] / ".cache"

COMPLETE: Final = ".complete"
"""A file in a finished folder: the recipe's digest."""


class BuildFailed(Exception):
    """A step of a build failed. The message is the command and everything it printed."""


def built(folder: Path, recipe: str, build: Callable[[Path], None]) -> Path:
    """`folder`, in which `build(folder)` has run to its end with the same recipe.

    The first caller builds, in any process or thread, and the others wait for it. A build that failed or was killed,
    one by another recipe and one that was moved here from elsewhere are done again from an empty folder. A folder may
    hold its own path, as virtual environments do, so it cannot be built beside and renamed. The file `.complete`, which
    appears at the end and in one step, makes a folder count.
    """
    digest = hashlib.sha256(f"{folder.resolve()}\n{recipe}".encode()).hexdigest()
    complete = folder / COMPLETE
    with _locked(folder):
        if not complete.is_file() or complete.read_text() != digest:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            build(folder)
            beside = folder / f"{COMPLETE}.new"
            beside.write_text(digest)
            beside.rename(complete)
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Hold the folder's lock, which the kernel takes back from a process that dies. The file stays: a lock on a file
    that somebody removes meanwhile is worthless."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def step(*command: str | Path, env: Mapping[str, str] | None = None) -> None:
    """Run one command of a build. Raises BuildFailed, with all its output, when it fails."""
    done = subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        shown = " ".join(str(part) for part in command)
        raise BuildFailed(f"{shown} ended with {done.returncode}:\n{done.stdout}")
