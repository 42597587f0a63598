"""Tests that run in forks of one collection: what pytest says of them is what it says of tests in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.patience import PATIENCE

FILES = {
    "pytest.ini": "[pytest]\n",
    "conftest.py": """
import os, time
from pathlib import Path

import pytest

(Path(__file__).parent / "collections").open("a").write("once\\n")

@pytest.fixture(scope="session")
def lasting():
    Path(__file__).with_name(f"begun-{os.getpid()}").touch()
    while len(list(Path(__file__).parent.glob("begun-*"))) < int(os.environ["TOGETHER"]):
        time.sleep(0.01)  # a process that began late would find no test left
    yield os.getpid()
    Path(__file__).with_name(f"over-{os.getpid()}").touch()
""",
    "test_many.py": """
import os
import pytest

@pytest.mark.parametrize("number", range(40))
def test_one(number, lasting, tmp_path, capfd):
    assert lasting == os.getpid()
    (tmp_path / "mine").touch()
    os.system(f"echo {number}")
    assert capfd.readouterr().out == f"{number}\\n"
    (tmp_path / "mine").unlink()
""",
    "test_others.py": """
import os, warnings
import pytest

def test_red():
    print("printed by it")
    assert 1 == 2

def test_dies():
    os.kill(os.getpid(), 9)

@pytest.mark.skip(reason="skipped by it")
def test_skipped():
    pass

@pytest.mark.xfail(strict=True)
def test_expected_to_fail():
    assert False

def test_warns():
    warnings.warn("warned by it")

@pytest.fixture
def broken():
    yield
    raise RuntimeError("no end")

def test_whose_end_fails(broken):
    pass
""",
}


def run(folder: Path, *args: str, together: int = 1) -> tuple[int, str]:
    """`together`: how many processes have begun before any goes on."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    options = ("-p", "tests.parallel", "-p", "no:cacheprovider", "-p", "no:asyncio", "-rA")
    command = (sys.executable, "-m", "pytest", *options, *args)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TOGETHER": str(together)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    return ended.returncode, ended.stdout + ended.stderr


def test_each_test_is_reported_once_as_what_it_was_and_a_process_that_dies_fails_its_own(tmp_path: Path) -> None:
    code, printed = run(tmp_path, "--processes", "3")
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "2 failed, 42 passed, 1 skipped, 1 xfailed, 1 warning, 1 error" in printed
    assert printed.count("PASSED test_many.py::test_one[") == 40
    assert "the process of this test ended with -9" in printed
    assert "printed by it" in printed
    assert "UserWarning: warned by it" in printed
    assert "RuntimeError: no end" in printed
    assert "skipped by it" in printed


def test_tests_are_collected_once_and_what_a_session_holds_ends_in_each_process(tmp_path: Path) -> None:
    code, printed = run(tmp_path, "--processes", "3", "-k", "test_one", together=3)
    assert code == 0, printed
    assert (tmp_path / "collections").read_text() == "once\n"
    assert len(list(tmp_path.glob("over-*"))) == 3  # and an idle process took of the only file


def test_after_x_nothing_new_begins(tmp_path: Path) -> None:
    code, printed = run(tmp_path, "--processes", "1", "-x", "test_others.py", "test_many.py")
    assert code == pytest.ExitCode.TESTS_FAILED, printed
    assert "stopping after 1 failures" in printed
    assert len(printed.split("PASSED ")) <= 2
