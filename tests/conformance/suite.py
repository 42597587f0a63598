"""Drives the Autobahn|Testsuite's fuzzing client, a Python 2.7 program, against an echo server.

It is built once, unmodified, into `.cache/autobahn`, from the files of PyPI whose hashes stand in `*.lock`. The suite
writes its results when a process ends, so the cases are run in batches, and one that hangs costs its batch a second try
only.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.built import CACHE, built, step
from tests.conformance import python2

HERE = Path(__file__).parent
HOME = CACHE / "autobahn"
WSTEST = HOME / "py27" / "bin" / "wstest"
LOCKS = [HERE / name for name in ("virtualenv.lock", "build-py27.lock", "suite-py27.lock")]

GROUPS = {
    1: "framing, sizes",
    2: "ping and pong",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "close",
    9: "limits",
    10: "fragmented sends",
    12: "deflate, payloads",
    13: "deflate, parameters",
}
BEHAVIOURS = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED", "NOT RUN"]
QUICK_WITHOUT = ("9.*", "12.*", "13.*")
LITE_SIZES = frozenset((1, 2, 3, 4, 5, 6, 7, 11, 12))  # of the eighteen sizes in groups 12 and 13: up to 16 KiB

HEAVY = frozenset((9, 12, 13))  # megabytes, or a thousand messages
HEAVY_IN_BATCH = 18
LIGHT_IN_BATCH = 400

LIST_CASES = (
    "from __future__ import print_function; import json; from autobahntestsuite.case import Cases, CaseBasename; "
    "print(json.dumps(['.'.join(k.__name__[len(CaseBasename):].split('_')) for k in Cases]))"
)


@dataclass(frozen=True, slots=True)
class Result:
    """How the server did in one case. `close` judges how the connection ended."""

    behaviour: str
    close: str
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.behaviour in ("FAILED", "NOT RUN") or self.close in ("FAILED", "WRONG CODE", "UNCLEAN")


NOT_RUN = Result("NOT RUN", "NOT RUN")


@dataclass(slots=True)
class Report:
    """The outcome of a run."""

    results: dict[str, Result]
    flaky: list[str] = field(default_factory=list)

    def named(self, test: Callable[[Result], bool]) -> list[str]:
        return [case for case, result in self.results.items() if test(result)]

    @property
    def failed(self) -> list[str]:
        return self.named(lambda result: result.failed)

    def with_behaviour(self, behaviour: str) -> list[str]:
        return self.named(lambda result: result.behaviour == behaviour)

    def table(self) -> str:
        """A line for each group of cases, and one for each failure."""
        lines = [f"{'':24}" + "".join(f"{name[:7]:>9}" for name in BEHAVIOURS)]
        for group in sorted({key(case)[0] for case in self.results}):
            counts = Counter(result.behaviour for case, result in self.results.items() if key(case)[0] == group)
            cells = "".join(f"{counts[name] or '.':>9}" for name in BEHAVIOURS)
            lines.append(f"{group:>2} {GROUPS.get(group, ''):21}" + cells)
        counts = Counter(result.behaviour for result in self.results.values())
        lines.append(f"{'all':24}" + "".join(f"{counts[name] or '.':>9}" for name in BEHAVIOURS))
        for case in self.failed:
            result = self.results[case]
            lines.append(f"{case}: {result.behaviour}, close {result.close}: {result.detail}")
        for name, cases in (("non-strict", self.with_behaviour("NON-STRICT")), ("passed on a second try", self.flaky)):
            if cases:
                lines.append(f"{name}: {' '.join(cases)}")
        return "\n".join(lines)


class CannotRun(Exception):
    """There is no Python 2.7 to build the suite with."""


def build() -> None:
    """Build the suite unless it is there; takes some 20 seconds, a C compiler and a python2.7.

    Raises CannotRun, and BuildFailed with the output of the failed step.
    """
    python = python2.find()
    if python is None:
        raise CannotRun(python2.MISSING)
    recipe = "\n".join([str(python), *(lock.read_text() for lock in LOCKS)])
    built(HOME, recipe, lambda folder: _build(folder, python))


def _build(folder: Path, python: Path) -> None:
    virtualenv, build_tools, suite = LOCKS
    tools, py27 = folder / "tools", folder / "py27"
    locked = ("install", "--disable-pip-version-check", "--require-hashes")
    step(sys.executable, "-m", "pip", *locked, "--target", tools, "--requirement", virtualenv)
    makes = os.environ | {"PYTHONPATH": str(tools), "VIRTUALENV_OVERRIDE_APP_DATA": str(folder / "app-data")}
    step(sys.executable, "-m", "virtualenv", "--no-periodic-update", "--python", python, py27, env=makes)
    for lock in (build_tools, suite):
        step(py27 / "bin" / "pip", *locked, "--no-build-isolation", "--requirement", lock, env=_environment())
    step(py27 / "bin" / "wstest", "--autobahnversion", env=_environment())


def cases(pattern: str = "*", *, without: Iterable[str] = (), lite: bool = False) -> list[str]:
    """The suite's own list, filtered by shell patterns separated by commas."""
    done = subprocess.run(
        [WSTEST.parent / "python", "-W", "ignore", "-c", LIST_CASES],
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    every: list[str] = sorted(json.loads(done.stdout.strip().splitlines()[-1]), key=key)
    chosen = [case for case in every if _matches(case, pattern.split(",")) and not _matches(case, without)]
    if lite:
        chosen = [case for case in chosen if key(case)[0] < 12 or key(case)[2] in LITE_SIZES]
    return chosen


async def run(url: str, chosen: list[str], *, stall: float = 120, tell: Callable[[str], None] | None = None) -> Report:
    """Run the cases. Failed ones are tried once more. `stall`: seconds without progress after which a batch is
    ended."""
    report = Report(dict.fromkeys(chosen, NOT_RUN))
    for batch in _batches(chosen):
        got = await _run_batch(url, batch, stall, tell)
        missing = [case for case in batch if case not in got]
        if missing:
            got |= await _run_batch(url, missing, stall, tell)
        report.results.update(got)
    again = report.failed
    if again:
        for case, result in (await _run_batch(url, again, stall, tell)).items():
            if not result.failed:
                report.flaky.append(case)
                report.results[case] = result
    return report


async def _run_batch(url: str, batch: list[str], stall: float, tell: Callable[[str], None] | None) -> dict[str, Result]:
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        specification = Path(folder) / "specification.json"
        reports = Path(folder) / "reports"
        specification.write_text(
            json.dumps(
                {
                    "outdir": str(reports),
                    "servers": [{"agent": "server", "url": url}],
                    "cases": batch,
                    "exclude-cases": [],
                    "exclude-agent-cases": {},
                }
            )
        )
        process = await asyncio.create_subprocess_exec(
            WSTEST, "-m", "fuzzingclient", "-s", specification,
            cwd=folder, env=_environment(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            while line := await asyncio.wait_for(process.stdout.readline(), stall):
                if tell is not None and (match := re.match(rb"Running test case ID (\S+)", line)):
                    tell(match[1].decode())
        except BaseException as error:
            process.kill()
            if not isinstance(error, TimeoutError):
                raise
        finally:
            await process.wait()
        return _read_reports(reports)


def _read_reports(folder: Path) -> dict[str, Result]:
    index = folder / "index.json"
    if not index.exists():
        return {}
    results = {}
    for case, entry in json.loads(index.read_text())["server"].items():
        details = json.loads((folder / entry["reportfile"]).read_text(errors="replace"))
        detail = f"{details.get('result') or ''} | {details.get('resultClose') or ''}"
        results[case] = Result(entry["behavior"], entry["behaviorClose"], re.sub(r"<[^>]+>", " ", detail)[:300])
    return results


def _batches(chosen: list[str]) -> list[list[str]]:
    """Neighbours together, as many as a second try may cost: each batch starts an interpreter, for a second."""
    batches: list[list[str]] = []
    room = 0.0
    for case in chosen:
        share = 1 / (HEAVY_IN_BATCH if key(case)[0] in HEAVY else LIGHT_IN_BATCH)
        if room < share:
            batches.append([])
            room = 1
        batches[-1].append(case)
        room -= share
    return batches


def _environment() -> dict[str, str]:
    """Nothing of this Python's surroundings may reach that Python."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return clean | {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", "LC_ALL": "C.UTF-8"}


def key(case: str) -> tuple[int, ...]:
    return tuple(int(number) for number in case.split("."))


def _matches(case: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(case, pattern) for pattern in patterns)
