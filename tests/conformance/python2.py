"""Finds the Python 2.7 that the Autobahn|Testsuite runs on. `python -m tests.conformance.python2` prints its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

MISSING = (
    "no python2.7 here, which the Autobahn suite runs on: install one (Debian 11, Ubuntu 22.04: apt-get install "
    "python2.7-dev; anywhere: pyenv install 2.7.18) or name it: PY2=/path/to/python2.7"
)


def find(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The first Python 2.7 that starts. A named one (`PY2`) is the only candidate."""
    return next((path for path in _candidates(environment) if _is_python27(path)), None)


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get("PY2"):
        yield Path(named)
        return
    for name in ("python2.7", "python2"):
        if found := shutil.which(name, path=environment.get("PATH", "")):
            yield Path(found)
            # pyenv's shims start only enabled versions. The real ones are beside them.
            yield from _of_pyenv(Path(found).parent.parent)
    yield from _of_pyenv(Path(environment.get("PYENV_ROOT") or Path(environment.get("HOME", "/"), ".pyenv")))


def _of_pyenv(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("versions/2.7*/bin/python2.7"), reverse=True)


def _is_python27(path: Path) -> bool:
    asked = [str(path), "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
    try:
        return subprocess.run(asked, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    python2 = find()
    sys.stdout.write(f"{python2 or MISSING}\n")
    sys.exit(python2 is None)
