"""What Starlette's and FastAPI's own tests promise for WebSockets holds under antiphon's names."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.upstream.runner import Suite, groups, passed, place, prepare, rewritten, run
from tests.upstream.suites import SUITES

CASES = [
    pytest.param(suite, only, id=f"{suite.project}-{only.replace(' ', '-') or 'whole-files'}")
    for suite in SUITES
    for only in groups(suite)
]


@pytest.mark.timeout(900)  # fetches what it runs, which builds it
@pytest.mark.parametrize(("suite", "only"), CASES)
async def test_what_upstream_promises_holds_under_our_names(suite: Suite, only: str, tmp_path: Path) -> None:
    files = groups(suite)[only]
    prepare(suite, tmp_path)
    code, output = await run(files, tmp_path)
    assert code == 0, output
    assert passed(tmp_path).keys() == {file.path for file in files}, "every file has a test that passed"


def test_names_are_rewritten_where_they_name_a_module_and_nowhere_else() -> None:
    names = {"old": "new", "old.part": "other.piece"}
    text = 'import old\nfrom old import x\nfrom old.part import y\n"old.part.z"\nolder = x.old\n'
    assert rewritten(text, names) == (
        'import new\nfrom new import x\nfrom other.piece import y\n"other.piece.z"\nolder = x.old\n'
    )


def test_who_unpacks_an_sdist_at_the_same_time_as_others_finds_it_complete(tmp_path: Path) -> None:
    together = threading.Barrier(4)
    target = tmp_path / "project-1"

    def unpack(number: int) -> str:
        mine = tmp_path / f"mine-{number}" / "project-1"
        mine.mkdir(parents=True)
        (mine / "setup.py").write_text("complete")
        together.wait()
        place(mine, target)
        return (target / "setup.py").read_text()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(unpack, range(4))) == ["complete"] * 4


def test_a_folder_that_cannot_be_placed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        place(tmp_path / "nothing", tmp_path / "project-1")
