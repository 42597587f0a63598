"""Chooses the twin of the channel, once. The native one needs the native parser beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._pure import Channel, Flusher

    native: Final = bool(os.environ)
else:
    from antiphon.wire import NATIVE

    try:
        if not NATIVE:
            raise ImportError("the parser is the pure one, so the channel is")
        from ._channel import Channel, Flusher

        native = True
    except ImportError:
        from ._pure import Channel, Flusher

        native = False

__all__ = ["Channel", "Flusher", "native"]
