"""Chooses the twin of the pipe, once. The native one needs the native parser beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

native: bool
"""Whether the native twin runs."""

if TYPE_CHECKING:
    from .pipe import Flusher, Pipe, Turns
else:
    from antiphon.wire import NATIVE

    try:
        if not NATIVE:
            raise ImportError("the parser is the pure one, so the pipe is")
        from ._pipe import Flusher, Pipe, Turns

        native = True
    except ImportError:
        from .pipe import Flusher, Pipe, Turns

        native = False

__all__ = ["Flusher", "Pipe", "Turns", "native"]
