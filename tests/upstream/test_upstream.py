"""What Starlette's and FastAPI's own tests promise for WebSockets holds under antiphon's names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.built import BuildFailed
from tests.upstream.runner import Suite, fetch, groups, passed, prepare, rewritten, run
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


def test_an_sdist_with_another_hash_is_refused(tmp_path: Path) -> None:
    expected = "0" * 64
    with pytest.raises(BuildFailed, match=rf"has the hash [0-9a-f]+, and suites\.py expects {expected}"):
        fetch(replace(SUITES[0], sha256=expected), tmp_path)
