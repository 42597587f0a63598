"""The promises of Starlette's and FastAPI's own tests for WebSockets hold under antiphon's names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.built import BuildFailed
from tests.upstream.runner import File, Suite, archive, passed, prepare, rewritten, run, sdist, selection, unpack
from tests.upstream.suites import SUITES


@pytest.mark.timeout(900)  # fetches and builds the suite
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.project)
async def test_what_upstream_promises_holds_under_our_names(suite: Suite, tmp_path: Path) -> None:
    prepare(suite, tmp_path)
    code, output = await run(suite.files, tmp_path)
    assert code == 0, output
    assert passed(tmp_path).keys() == {file.path for file in suite.files}, "every file has a test that passed"


def test_names_are_rewritten_where_they_name_a_module_and_nowhere_else() -> None:
    names = {"old": "new", "old.part": "other.piece"}
    text = 'import old\nfrom old import x\nfrom old.part import y\n"old.part.z"\nolder = x.old\n'
    assert rewritten(text, names) == (
        'import new\nfrom new import x\nfrom other.piece import y\n"other.piece.z"\nolder = x.old\n'
    )


def test_each_file_has_its_own_choice_of_tests() -> None:
    files = [File(path="a/test_one.py", only="web or ws"), File(path="a/test_two.py")]
    assert selection(files) == "test_one.py and (web or ws) or test_two.py"
    with pytest.raises(ValueError, match=r"test_one\.py is part of the name of another file"):
        selection([*files, File(path="b/other_test_one.py")])


def test_an_sdist_with_another_hash_is_refused(tmp_path: Path) -> None:
    expected = "0" * 64
    downloaded = archive(SUITES[0], sdist(SUITES[0]).parent)
    with pytest.raises(BuildFailed, match=rf"has the hash [0-9a-f]+, and suites\.py expects {expected}"):
        unpack(replace(SUITES[0], sha256=expected), downloaded, tmp_path)
    assert list(tmp_path.iterdir()) == []
