"""This process, where it is the command's own: whether it is, and how it imports then."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Final

OWN_NAMES: Final = frozenset({"annotations", "main", "re", "sys"})
"""The names in the script of an installed command."""


def is_the_commands() -> bool:
    """Whether `__main__` does nothing but call the command: a program around it has things of its own."""
    return {name for name in vars(sys.modules["__main__"]) if not name.startswith("__")} <= OWN_NAMES


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Imports without the garbage collector, which would look a hundred times through modules that stay.

    A fifth of the time of `antiphon run`'s imports, and a part of each full collection later.
    """
    if not (gc.isenabled() and is_the_commands()):
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
