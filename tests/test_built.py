"""A folder built once is there for all tests, complete. A builder that dies or fails spoils nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.built import BuildFailed, built, step
from tests.commands import ROOT
from tests.conformance import python2


def test_of_many_who_need_the_same_thing_one_builds_it_and_all_find_it_complete(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    builders: list[int] = []

    def need(number: int) -> str:
        def build(folder: Path) -> None:
            builders.append(number)
            (folder / "half").touch()
            (folder / "half").rename(folder / "whole")

        together.wait()
        return ",".join(path.name for path in built(tmp_path / "thing", "recipe", build).glob("[!.]*"))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(need, range(4))) == ["whole"] * 4
    assert len(builders) == 1


PROCESS = """
import sys, time
from pathlib import Path
from tests.built import built

def build(folder):
    (folder / "half").touch()
    print("building", flush=True)
    sys.stdin.read()

built(Path(sys.argv[1]), "recipe", build)
"""


def test_what_a_killed_builder_left_is_done_again_from_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        with ThreadPoolExecutor(1) as threads:
            done = threads.submit(built, folder, "recipe", lambda folder: (folder / "whole").touch())
            assert (folder / "half").exists()
            process.kill()
            done.result()
    assert [path.name for path in folder.glob("[!.]*")] == ["whole"]


def test_another_recipe_and_another_place_are_another_build(tmp_path: Path) -> None:
    folder, seen = tmp_path / "thing", list[str]()
    for recipe in ("one", "one", "two"):
        built(folder, recipe, lambda folder, recipe=recipe: seen.append(recipe))  # type: ignore[misc]
    folder.rename(tmp_path / "moved")
    built(tmp_path / "moved", "two", lambda folder: seen.append("moved"))
    assert seen == ["one", "two", "moved"]


def test_a_build_that_fails_is_told_with_all_it_printed_and_counts_for_nothing(tmp_path: Path) -> None:
    program = "import sys; print('fetching'); print('no network', file=sys.stderr); sys.exit(3)"

    def build(folder: Path) -> None:
        step(sys.executable, "-c", program)

    with pytest.raises(BuildFailed, match=r"(?s)ended with 3:.*fetching.*no network"):
        built(tmp_path / "thing", "recipe", build)
    assert built(tmp_path / "thing", "recipe", lambda folder: (folder / "whole").touch()).joinpath("whole").exists()


def stand_in(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_python27_that_does_not_start_is_passed_over_for_one_that_does(tmp_path: Path) -> None:
    """As pyenv's stand-ins do not, for a version that is not switched on."""
    stand_in(tmp_path / "shims" / "python2.7", "exit 127")
    real = stand_in(tmp_path / "versions" / "2.7.18" / "bin" / "python2.7", "exit 0")
    assert python2.find({"PATH": str(tmp_path / "shims"), "HOME": str(tmp_path / "home")}) == real
    assert python2.find({"PATH": "", "HOME": "/nowhere", "PYENV_ROOT": str(tmp_path)}) == real


def test_where_there_is_no_python27_none_is_made_up(tmp_path: Path) -> None:
    wrong = stand_in(tmp_path / "bin" / "python2", "exit 1")  # another version, as on a system where it is Python 3
    assert python2.find({"PATH": str(wrong.parent), "HOME": str(tmp_path)}) is None
    assert python2.find({"PATH": "", "HOME": str(tmp_path), "PY2": str(tmp_path / "nothing")}) is None
