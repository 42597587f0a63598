"""Chooses the twin of the channel, once. The native one needs the native parser beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

native: bool
"""Whether the native twin runs."""

if TYPE_CHECKING:
    from ._pure import Channel, Flusher, Turns
else:
    from antiphon.wire import NATIVE

    try:
        if not NATIVE:
            raise ImportError("the parser is the pure one, so the channel is")
        from ._channel import Channel, Flusher, Turns

        native = True
    except ImportError:
        from ._pure import Channel, Flusher, Turns

        native = False

__all__ = ["Channel", "Flusher", "Turns", "native"]
