"""Runs the test files that another project ships in its sdist against our names.

Nothing of theirs is kept here: the sdist is fetched from PyPI into `.cache/upstream` (not in git), the files a `Suite`
names are copied into a temporary folder with the module names rewritten, and pytest runs there in a process of its own.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One test file of a suite."""

    path: str
    """Inside the sdist."""
    only: str = ""
    """A pytest `-k` expression: which of its tests are about us. Empty: all."""
    deselected: Mapping[str, str] = field(default_factory=dict)
    """Tests whose promise antiphon changes on purpose: name → the reason, with the place in the specification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Test files of one release of one project."""

    project: str
    version: str
    support: tuple[str, ...]
    """Files and folders of the sdist that the test files need; their names are rewritten too."""
    names: Mapping[str, str]
    """Their module → ours. The longest name wins."""
    files: tuple[File, ...]


def sdist(project: str, version: str) -> Path:
    """The unpacked source distribution, fetched once."""
    unpacked = CACHE / f"{project}-{version}"
    if not unpacked.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        download = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(CACHE)]
        subprocess.run([sys.executable, "-m", "pip", *download, f"{project}=={version}"], check=True)
        with tarfile.open(next(CACHE.glob(f"{project}-{version}.tar.*"))) as archive:
            archive.extractall(CACHE, filter="data")
    return unpacked


def prepare(suite: Suite, folder: Path) -> None:
    """Copy what the suite needs into `folder`, under our names."""
    source = sdist(suite.project, suite.version)
    for name in (*suite.support, *(file.path for file in suite.files)):
        target = folder / name
        if (source / name).is_dir():
            shutil.copytree(source / name, target, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target)
    for path in folder.rglob("*.py"):
        path.write_text(rewritten(path.read_text(), suite.names))


def rewritten(text: str, names: Mapping[str, str]) -> str:
    """The text with the modules renamed wherever they are imported or named in full."""
    by_length = sorted(names, key=len, reverse=True)
    alternatives = "|".join(re.escape(name) for name in by_length)
    return re.sub(rf"(?<![\w.])({alternatives})(?=[\s.\"'])", lambda match: names[match[1]], text)


async def run(file: File, folder: Path) -> tuple[int, str]:
    """pytest's exit code and output for one file in a prepared folder."""
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "default", "--timeout", "30", file.path]
    for name in file.deselected:
        arguments += ["--deselect", f"{file.path}::{name}"]
    if file.only:
        arguments += ["-k", file.only]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
