"""The public names: `__all__` of the modules in docs/stability.md. `python -m tests.public_names` freezes them anew.

One name per line in tests/public_names.txt, so that a change of the public API shows as a line of a diff.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Final

import starlette.status

ROOT: Final = Path(__file__).parent.parent
FROZEN: Final = Path(__file__).parent / "public_names.txt"
STABILITY: Final = (ROOT / "docs" / "stability.md").read_text()

MODULES: Final = sorted(
    {name for row in re.findall(r"^\| (`antiphon.*?) \|", STABILITY, re.M) for name in re.findall(r"`([\w.]+)`", row)}
)
"""Those in the table."""

FASTAPIS: Final = (
    "fastapi",
    *re.findall(r"`(\w+)`", STABILITY[STABILITY.index("So have") :].split("public")[0]),
    "requests",
)
"""Those with FastAPI's names, below `antiphon`."""


def public_names() -> list[str]:
    """`module.name`, sorted. Without the status codes, which are as many as Starlette has."""
    found = []
    for module in MODULES:
        names = set(importlib.import_module(module).__all__)
        if module == "antiphon.status":
            names -= set(starlette.status.__all__)
        found += [f"{module}.{name}" for name in names]
    return sorted(found)


if __name__ == "__main__":
    FROZEN.write_text("\n".join(public_names()) + "\n")
