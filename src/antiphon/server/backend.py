"""Chooses the twin of the pipe, once. The native one needs the native parser beside it."""

from __future__ import annotations

from typing import Final, NamedTuple

from antiphon.wire import NATIVE
from antiphon.wire.parser import Parser as PureParser

from .pipe import Flusher, Pipe, Turns

__all__ = ["NATIVE_TWIN", "PURE_TWIN", "Flusher", "Pipe", "Turns", "Twin", "native", "twin"]


class Twin(NamedTuple):
    """The classes that belong together. The pure ones are the types of both."""

    Pipe: type[Pipe]
    Flusher: type[Flusher]
    Turns: type[Turns]
    Parser: type[PureParser]


PURE_TWIN: Final = Twin(Pipe, Flusher, Turns, PureParser)
NATIVE_TWIN: Twin | None = None
"""None where it was not built, or is not wanted (`ANTIPHON_PURE=1`)."""

if NATIVE:
    try:
        from antiphon.wire import Parser as NativeParser

        from ._pipe import Flusher as NativeFlusher
        from ._pipe import Pipe as NativePipe
        from ._pipe import Turns as NativeTurns
    except ImportError:
        pass
    else:
        NATIVE_TWIN = Twin(NativePipe, NativeFlusher, NativeTurns, NativeParser)

twin: Twin = NATIVE_TWIN or PURE_TWIN
"""The twin for every `Engine` made from now on."""

native: Final[bool] = NATIVE_TWIN is not None
"""Whether the native twin runs."""
