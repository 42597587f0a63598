"""Branch coverage of each module by its own tests, as a table: `make coverage`, `make coverage ARGS="hub routing"`.

A module's own tests are the folder of its part: tests/hub for src/antiphon/hub. A line that only another part happens
to run does not count: those who work on this part would not hear of its faults. The second column is the test file of
the module's own name, where there is one. The pure twin is measured, of which every line can be seen, with the
processes that tests start. A killed one reports nothing.

The exit status is 1 when a module is below its floor in tests/coverage_floor.txt. One without a line there has none.
Whether tests pass is not asked here, where everything is several times as slow: that is for `make test`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import coverage

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "antiphon"
TESTS = ROOT / "tests"
FLOORS = TESTS / "coverage_floor.txt"
DATA = ROOT / ".cache" / "coverage"

SLACK = 1.0
"""Percent that a floor is below the measured figure: code that depends on timing is not run each time."""

OWN_TESTS = {
    "__main__": ["cli/test_run.py"],
    "deadlines": ["test_deadlines.py"],
    "demo": ["cli/test_demo.py", "browser"],
    "encoders": ["test_encoders.py"],
    "endpoints": ["test_endpoints.py"],
    "events": ["server/test_asgi.py"],
    "exceptions": ["app/test_endings.py", "connection/test_websocket.py", "routing/test_endings.py"],
    "heartbeat": ["test_heartbeat.py"],
    "identity": ["gate/test_bearer.py", "gate/test_expiry.py", "gate/test_identity.py"],
    "lazily": ["test_lazily.py"],
    "masking": ["gate/test_bearer.py", "gate/test_secrets.py"],
    "misspelt": ["test_misspelt.py"],
    "networks": ["gate/test_quotas.py", "server/test_limits.py"],
    "rawbytes": ["connection/test_typed.py", "messages/test_bytes.py"],
    "resource": ["observability"],
    "shown": ["test_shown.py"],
    "tagged": ["connection/test_typed.py", "hub/test_typed.py", "messages"],
    "tags": ["messages"],
}
"""Of the parts whose tests are not in the folder of their name."""


class Covered(NamedTuple):
    module: str
    statements: int
    branches: int
    percent: float
    missing: list[int]
    own_file: str
    own_percent: float | None


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def tests_of(part: str) -> list[Path]:
    """The test files of a part."""
    found: list[Path] = []
    for place in OWN_TESTS.get(part, [part]):
        path = TESTS / place
        found += sorted(path.glob("test_*.py")) if path.is_dir() else [path] * path.exists()
    return found


def named_after(path: Path) -> Path | None:
    """The test file of the module's own name: test_rooms.py of hub/rooms.py, test_relay_wire.py of relay/wire.py."""
    name = path.stem.strip("_")
    names = {f"test_{name}.py", f"test_{path.parent.name}_{name}.py"}
    return next((test for test in tests_of(part_of(path)) if test.name in names), None)


def measured_modules() -> Iterator[Path]:
    """Not the parts that only pass names on, and have no tests of their own."""
    for path in sorted(SOURCE.rglob("*.py")):
        if tests_of(part_of(path)):
            yield path


def measure(part: str, jobs: int) -> None:
    """Run each test file of the part in a process of its own, whose name is the context of the lines it runs."""
    folder = DATA / part
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def run(test: Path) -> None:
        name = str(test.relative_to(ROOT))
        command = [sys.executable, "-m", "coverage", "run", "-p", f"--data-file={folder / 'data'}", f"--context={name}"]
        done = subprocess.run(
            [*command, "-m", "pytest", "-q", "-p", "no:cacheprovider", name],
            cwd=ROOT,
            env={**os.environ, "ANTIPHON_PURE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        last = (done.stdout.strip() or done.stderr.strip() or "nothing was printed").splitlines()
        print(f"{name}: {last[-1].strip('= ')}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, tests_of(part)))
    combined = coverage.Coverage(data_file=str(DATA / part / "data"))
    combined.combine()
    combined.save()


def report(part: str, paths: list[Path], contexts: list[str] | None = None) -> dict[str, dict[str, object]]:
    """coverage.py's own report on these modules, by path."""
    data = coverage.Coverage(data_file=str(DATA / part / "data"))
    data.load()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        data.json_report(morfs=[str(path) for path in paths], contexts=contexts, outfile=file.name)
        found: dict[str, dict[str, object]] = json.load(file)["files"]
    return {str((ROOT / name).relative_to(SOURCE)): what for name, what in found.items()}


def covered(part: str) -> Iterator[Covered]:
    paths = [path for path in measured_modules() if part_of(path) == part]
    for path, (module, found) in zip(paths, report(part, paths).items(), strict=True):
        summary = found["summary"]
        assert isinstance(summary, dict)
        own = named_after(path)
        own_percent = None
        if own is not None:
            (alone,) = report(part, [path], [f"^{own.relative_to(ROOT)}$"]).values()
            own_percent = alone["summary"]["percent_covered"]  # type: ignore[index]
        yield Covered(
            module=module,
            statements=summary["num_statements"],
            branches=summary["num_branches"],
            percent=summary["percent_covered"],
            missing=found["missing_lines"],  # type: ignore[arg-type]
            own_file="" if own is None else own.name,
            own_percent=own_percent,
        )


def floors() -> dict[str, int]:
    lines = FLOORS.read_text().splitlines() if FLOORS.exists() else []
    return {name: int(percent) for name, percent in (line.split() for line in lines if line and line[0] != "#")}


def spans(lines: list[int]) -> str:
    """`[3, 4, 5, 9]` as "3-5 9"."""
    found: list[list[int]] = []
    for line in lines:
        if found and found[-1][-1] == line - 1:
            found[-1][1:] = [line]
        else:
            found.append([line])
    return " ".join("-".join(map(str, span)) for span in found)


def show(rows: list[Covered]) -> None:
    print(f"{'module':<44}{'stmts':>6}{'branch':>7}{'part':>7}{'own':>6}  own file, lines that the part's tests miss")
    for row in rows:
        own = "" if row.own_percent is None else f"{row.own_percent:.0f}%"
        missing = spans(row.missing)
        line = f"{row.module:<44}{row.statements:>6}{row.branches:>7}{row.percent:>6.1f}%{own:>6}  {row.own_file}"
        print(f"{line}  {missing[:60]}{'…' if len(missing) > 60 else ''}".rstrip())


def write_floors(rows: list[Covered]) -> None:
    """Floors only rise here. To lower one is for a person who can say why."""
    kept = floors()
    for row in rows:
        kept[row.module] = max(kept.get(row.module, 0), int(max(row.percent - SLACK, 0)))
    known = {str(path.relative_to(SOURCE)) for path in measured_modules()}
    lines = ["# Percent of a module that the tests of its part run at least, branches counted: `make coverage`."]
    lines += [f"{name} {percent}" for name, percent in sorted(kept.items()) if name in known]
    FLOORS.write_text("\n".join(lines) + "\n")


def main() -> int:
    every = sorted({part_of(path) for path in measured_modules()})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*every, []], help="such as hub; all without")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="test files at once")
    parser.add_argument("--measured", action="store_true", help="run nothing: the table of what was measured last")
    parser.add_argument("--raise-floors", action="store_true", help="write what was reached into the file of floors")
    options = parser.parse_args()
    parts = options.parts or every
    if not options.measured:
        for part in parts:
            measure(part, options.jobs)
    rows = [row for part in parts if (DATA / part / "data").exists() for row in covered(part)]
    show(rows)
    if options.raise_floors:
        write_floors(rows)
    known = floors()
    below = [(row, floor) for row in rows if row.percent < (floor := known.get(row.module, 0))]
    for row, floor in below:
        print(f"{row.module} is at {row.percent:.1f} %, its floor is {floor} %: {spans(row.missing)}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
