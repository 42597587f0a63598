"""The files of a page of docs/howto, as a reader would copy them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.commands import ROOT

PAGES = ROOT / "docs" / "howto"


def printed(page: str, folder: Path) -> None:
    """Put the files of a page into `folder`: Python with its name in the first line, and the HTML."""
    text = (PAGES / f"{page}.md").read_text()
    for name, block in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(block)
    for block in re.findall(r"^```html\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        (folder / "page.html").write_text(block)
