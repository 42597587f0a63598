"""A command's own process imports without the garbage collector. A program around the command keeps its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.patience import PATIENCE

PROGRAM = """
main.get_command(None, "run")
print([each["collections"] for each in __import__("gc").get_stats()], __import__("gc").isenabled())
print(__import__("gc").get_freeze_count() > 1000)
"""


@pytest.mark.parametrize(
    ("beginning", "ours"),
    [
        ("from antiphon.cli import main", True),
        ("import math\nfrom antiphon.cli import main", False),
    ],
)
def test_what_a_command_imports_is_not_looked_through(beginning: str, ours: bool) -> None:
    before = told(f"{beginning}\n{PROGRAM.replace('main.get_command', '(lambda *_: None)')}")
    after = told(f"{beginning}\n{PROGRAM}")
    assert (before[0] == after[0]) is ours  # no collection more
    assert after[1] == str(ours)


def told(program: str) -> list[str]:
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return found.stdout.splitlines()


def test_a_collector_that_was_off_stays_off() -> None:
    program = "__import__('gc').disable()\nfrom antiphon.cli import main" + PROGRAM
    assert told(program)[0].endswith("False")
