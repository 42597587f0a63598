"""The limits of figures, and the error beyond one: shared by the measurements that take `--check`.

A limit is a promise about a figure on a machine that does nothing else. `--check` fails where a figure passes it by
more than `SLACK`, so that it tells of code that has become clearly slower, and not of a machine that has other work.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

SLACK: Final = 1.4


def verdict(figures: Mapping[str, tuple[float, float]]) -> int:
    """Print each figure beside its limit. The exit code: 1 where one is clearly worse, with `--check`."""
    clearly_worse = [name for name, (figure, limit) in figures.items() if figure > limit * SLACK]
    print()
    for name, (figure, limit) in figures.items():
        note = "clearly worse" if name in clearly_worse else "over its limit" if figure > limit else ""
        print(f"{name:34}{figure:8.2f}   limit {limit:.3g}   {note}".rstrip())
    return int(bool(clearly_worse) and "--check" in sys.argv)
