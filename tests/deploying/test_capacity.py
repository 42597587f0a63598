"""The calculator on the page agrees with the page, and its figures are those of the benchmarks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.commands import ROOT
from tests.patience import PATIENCE

PAGE = (ROOT / "docs/deploying/capacity.md").read_text()
SCRIPT = ROOT / "docs/deploying/capacity.js"
BENCHMARKS = (ROOT / "docs/benchmarks/README.md").read_text()
NODE = shutil.which("node")


def evaluated(expression: str) -> Any:
    if NODE is None:
        pytest.skip("node is not installed: make system")
    code = f"import {{ plan, FIGURES }} from {json.dumps(SCRIPT.as_uri())}; console.log(JSON.stringify({expression}))"
    command = [NODE, "--input-type=module", "-e", code]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return json.loads(ran.stdout)


def rows() -> dict[str, list[str]]:
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
    ]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize(("column", "connections", "hosts"), [(0, 100_000, 3), (1, 1_000_000, 20)])
def test_a_worked_plan_is_what_the_calculator_says(column: int, connections: int, hosts: int) -> None:
    given = {
        "connections": connections,
        "rate": connections * 0.017,
        "receivers": 20,
        "work": 100,
        "size": 200,
        "hosts": hosts,
        "usage": 0.5,
        "back": 60,
    }
    found = evaluated(f"plan({json.dumps(given)})")
    told = {name: float(cells[column].replace(" ", "")) for name, cells in rows().items() if name in NAMES}
    assert told == {
        name: pytest.approx(found[key], abs=5e-3 if digits else 0.5) for name, (key, digits) in NAMES.items()
    }


NAMES = {
    "cores busy": ("busy", 2),
    "cores to have": ("cores", 0),
    "connections per core": ("perCore", 0),
    "memory, GiB": ("memory", 2),
    "a core of Redis": ("redis", 2),
    "Mbit/s out": ("megabits", 0),
    "open files in all": ("descriptors", 0),
}


def test_the_figures_on_the_page_are_those_of_the_calculator() -> None:
    figures = evaluated("FIGURES")
    for names, cells in rows().items():
        found = re.findall(r"`(\w+)`", names)
        if not found or not set(found) <= figures.keys():
            continue
        told = [
            float(number) * (1024 if unit == "MiB" else 1)
            for number, unit in re.findall(r"([\d.]+) (µs|KiB|MiB)", cells[1])
        ]
        assert told == [figures[name] for name in found]


def measured(workload: str, peer: str) -> float:
    """The first figure of a peer under the plot of a workload."""
    section = BENCHMARKS[BENCHMARKS.index(f"]({workload}.svg)") :]
    row = re.search(rf"^\| {re.escape(peer)} \| ([\d.]+) \|", section, re.MULTILINE)
    assert row is not None
    return float(row[1])


def test_the_figures_of_the_calculator_are_those_of_the_benchmarks() -> None:
    figures = evaluated("FIGURES")
    assert figures["message"] == measured("echo-32", "antiphon")
    assert figures["delivery"] == measured("fanout-10000-turns", "antiphon's hub")
    assert figures["connect"] == round(measured("connect", "antiphon"))
    alone = measured("rooms", "antiphon's hub")
    assert figures["overRedis"] == int(10 * (measured("rooms", "antiphon's hub on Redis") - alone))
    assert figures["overRelay"] == round(10 * (measured("rooms", "antiphon's hub, 2 workers and their relay") - alone))


def test_the_forms_fields_are_what_the_calculator_takes() -> None:
    fields = set(re.findall(r'<input name="(\w+)"', PAGE))
    [taken] = re.findall(r"export function plan\(\{ ([\w, ]+) \}\)", SCRIPT.read_text())
    assert fields == set(taken.split(", "))
