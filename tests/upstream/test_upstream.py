"""What Starlette's and FastAPI's own tests promise for WebSockets holds under antiphon's names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upstream.runner import File, Suite, prepare, rewritten, run
from tests.upstream.suites import SUITES

CASES = [
    pytest.param(suite, file, id=f"{suite.project}-{Path(file.path).stem}") for suite in SUITES for file in suite.files
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("suite", "file"), CASES)
async def test_what_upstream_promises_holds_under_our_names(suite: Suite, file: File, tmp_path: Path) -> None:
    prepare(suite, tmp_path)
    code, output = await run(file, tmp_path)
    assert code == 0, output


def test_names_are_rewritten_where_they_name_a_module_and_nowhere_else() -> None:
    names = {"old": "new", "old.part": "other.piece"}
    text = 'import old\nfrom old import x\nfrom old.part import y\n"old.part.z"\nolder = x.old\n'
    assert rewritten(text, names) == (
        'import new\nfrom new import x\nfrom other.piece import y\n"other.piece.z"\nolder = x.old\n'
    )
