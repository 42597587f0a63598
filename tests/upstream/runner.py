"""Runs the test files that another project ships in its sdist against our names.

Nothing of theirs is kept here: the sdist is fetched from PyPI into `.cache/upstream` (not in git), the files a `Suite`
names are copied into a temporary folder with the module names rewritten, and pytest runs there in a process of its own:
one for all files of a suite, since starting pytest takes longer than most files.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.built import CACHE, BuildFailed, built, step

REPORT = "report.xml"
NO_FALSE_ALARM = "error::antiphon.exceptions.RegistrationWarning"
"""The tests of others mean their routes as they are."""


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
    sha256: str
    """Of the sdist."""
    support: tuple[str, ...]
    """Files and folders of the sdist that the test files need; their names are rewritten too."""
    names: Mapping[str, str]
    """Their module → ours. The longest name wins."""
    files: tuple[File, ...]


def sdist(suite: Suite) -> Path:
    """The unpacked source distribution. The first caller fetches it, and the others wait."""
    release = f"{suite.project}-{suite.version}"
    return built(CACHE / "upstream" / release, suite.sha256, lambda folder: fetch(suite, folder)) / release


def fetch(suite: Suite, folder: Path) -> None:
    """Download the sdist and unpack it inside `folder`. Raises BuildFailed."""
    only_the_sdist = (
        "--no-deps",
        "--no-binary",
        suite.project,
    )  # its build tools may come as wheels: ten times as quick
    requirement = f"{suite.project}=={suite.version}"
    step(sys.executable, "-m", "pip", "download", "--quiet", *only_the_sdist, "--dest", folder, requirement)
    unpack(suite, archive(suite, folder), folder)


def archive(suite: Suite, folder: Path) -> Path:
    return next(folder.glob(f"{suite.project}-{suite.version}.tar.*"))


def unpack(suite: Suite, path: Path, folder: Path) -> None:
    """Raises BuildFailed where it is not the file that is meant."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != suite.sha256:
        raise BuildFailed(f"{path.name} has the hash {digest}, and suites.py expects {suite.sha256}")
    with tarfile.open(path) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12's Python 3.11.2 has none
        archive.extractall(folder)


def prepare(suite: Suite, folder: Path) -> None:
    """Copy the suite's files into `folder`, under our names."""
    source = sdist(suite)
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


def selection(files: Sequence[File]) -> str:
    """One `-k` expression for all: a file's name holds for each of its tests. Raises ValueError where one name is part
    of another with another choice, which would be mixed up."""
    names = {file.path: file.path.rpartition("/")[2] for file in files}
    for file in files:
        if any(names[file.path] in names[other.path] and file.only != other.only for other in files):
            raise ValueError(f"{names[file.path]} is part of the name of another file")
    return " or ".join(f"{names[file.path]} and ({file.only})" if file.only else names[file.path] for file in files)


async def run(files: Sequence[File], folder: Path) -> tuple[int, str]:
    """pytest's exit code and output for files of a suite in a prepared folder."""
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout", "100"]
    arguments += ["-W", "default", "-W", NO_FALSE_ALARM]
    arguments += [f"--junit-xml={folder / REPORT}", *(file.path for file in files)]
    for file in files:
        for name in file.deselected:
            arguments += ["--deselect", f"{file.path}::{name}"]
    arguments += ["-k", selection(files)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


def passed(folder: Path) -> dict[str, int]:
    """How many tests of each file have passed in the last run, by the file's path."""
    counts: dict[str, int] = {}
    for case in ElementTree.parse(folder / REPORT).iter("testcase"):
        if len(case) == 0:  # no child tells of a failure, an error or a skip
            path = case.get("classname", "").replace(".", "/") + ".py"
            counts[path] = counts.get(path, 0) + 1
    return counts
