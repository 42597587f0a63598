"""The promises of this repository's scripts to its maintainers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.commands import ROOT


def judged(message: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "COMMIT_EDITMSG"
    path.write_text(message)
    return subprocess.run([ROOT / "scripts" / "commit_subject.sh", path], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "message",
    ["x" * 72, "é" * 72, "Short\n\n" + "a long line of a body " * 9, "Short\n# On branch main, as editors show\n"],
    ids=["72", "72 letters of two bytes", "a body", "comments"],
)
def test_a_commit_subject_of_72_characters_passes(message: str, tmp_path: Path) -> None:
    done = judged(message, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_longer_commit_subject_is_refused_with_its_length(tmp_path: Path) -> None:
    done = judged("x" * 73 + "\n\nwhy\n", tmp_path)
    assert done.returncode == 1
    assert "has 73 characters, 72 are the most" in done.stderr


def test_a_body_that_begins_in_the_second_line_is_refused(tmp_path: Path) -> None:
    done = judged("Short\nwhy\n", tmp_path)
    assert done.returncode == 1
    assert "an empty line belongs between" in done.stderr


def test_what_make_starts_keeps_its_bytecode_whatever_the_environment_says() -> None:
    """Hundreds of processes start from the sources in a run of the tests."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    shown = 'shown: ; @echo "[$${PYTHONDONTWRITEBYTECODE-}]"'
    command = ["make", "--no-print-directory", f"--eval={shown}", "shown"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture(scope="module")
def covered() -> ModuleType:
    spec = importlib.util.spec_from_file_location("covered", ROOT / "scripts" / "covered.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("module", "test"),
    [
        ("hub/delivery.py", "hub/test_delivery.py"),
        ("hub/backends/relay/wire.py", "hub/test_relay_wire.py"),
        ("security.py", "security/test_security.py"),
        ("encoders.py", "test_encoders.py"),
        ("routing/context.py", None),
    ],
)
def test_the_tests_of_a_modules_own_name_are_found(covered: ModuleType, module: str, test: str | None) -> None:
    found = covered.named_after(covered.SOURCE / module)
    assert found == (None if test is None else covered.TESTS / test)


def test_every_floor_is_that_of_a_module_that_is_measured(covered: ModuleType) -> None:
    measured = {str(path.relative_to(covered.SOURCE)) for path in covered.measured_modules()}
    assert set(covered.floors()) <= measured


def test_missed_lines_are_told_as_spans(covered: ModuleType) -> None:
    assert covered.spans([3, 4, 5, 9, 11, 12]) == "3-5 9 11-12"
    assert covered.spans([]) == ""


@pytest.mark.parametrize(
    ("words", "environment"),
    [(["lowest"], ".cache/lowest/venv"), (["newest"], ".cache/newest/venv"), ([], ".venv")],
    ids=["lowest", "newest", "the locked ones"],
)
def test_tests_with_other_versions_run_in_the_environment_that_has_them(
    words: list[str], environment: str, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for venv in (".cache/lowest/venv", ".cache/newest/venv", ".venv"):
        python = tmp_path / venv / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\necho {venv} $*\n")
        python.chmod(0o755)
    command = [str(tmp_path / "scripts" / "test.sh"), *words, "tests/some.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{environment} -m pytest -q tests/some.py\n"


def test_no_pictures_are_taken_where_emoji_would_be_boxes(tmp_path: Path) -> None:
    (tmp_path / "fonts.conf").write_text(f"<fontconfig><dir>{tmp_path}</dir></fontconfig>")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "screenshots.py"],
        env={**os.environ, "FONTCONFIG_FILE": str(tmp_path / "fonts.conf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.split(":")[:2]) == (1, ["error", " no font with emoji here"])
