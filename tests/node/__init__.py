"""Node.js, and the tests' packages from npm: installed once into `.cache/node`, as `package-lock.json` says."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.built import CACHE, built, step

HERE = Path(__file__).parent
NEEDED = ("package.json", "package-lock.json")


def tools() -> Path:
    """The folder `node_modules`. Raises BuildFailed when npm cannot fill it."""

    def install(folder: Path) -> None:
        for name in NEEDED:
            shutil.copy(HERE / name, folder)
        step("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder)

    return built(CACHE / "node", "".join((HERE / name).read_text() for name in NEEDED), install) / "node_modules"


def tool(package: str, script: str) -> tuple[str, str]:
    """The command that runs a script of a package."""
    return "node", str(tools() / package / script)
