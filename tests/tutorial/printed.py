"""The files that the steps of the tutorial print, in a folder as a reader has them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.commands import ROOT

TUTORIAL = ROOT / "docs" / "tutorial"
STEP_4 = "4-messages"
STEP_5 = "5-tests"
STEP_6 = "6-live"


def blocks(step: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (TUTORIAL / f"{step}.md").read_text(), re.MULTILINE | re.DOTALL)


def printed(folder: Path, *steps: str) -> None:
    """Put the files of the steps into `folder`, those of later steps over those of earlier ones.

    A block begins with the name of its file; HTML is the page. A function that a later step prints alone replaces
    the one of its name, and a test is added.
    """
    for step in steps:
        for block in blocks(step, "html"):
            (folder / "page.html").write_text(block)
        for block in [*blocks(step, "python"), *blocks(step, "toml")]:
            named = re.match(r"# (\w+\.\w+)\n", block)
            assert named, f"{step}: a block does not begin with the name of its file"
            file = folder / named[1]
            changes = step == STEP_6 and file.name == "test_main.py"
            file.write_text(_changed(file.read_text(), block[named.end() :]) if changes else block)


def _changed(text: str, block: str) -> str:
    for function in block.strip().split("\n\n\n"):
        named = re.match(r"(?:async )?def (\w+)", function)
        assert named, function
        old = re.search(rf"^(?:async )?def {named[1]}\(.*?(?=\n\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
        text = text.replace(old[0], function) if old else f"{text}\n\n{function}\n"
    return text
