"""Chooses the twin, once: the native parser and encoder where they were built, else the readable ones.

`ANTIPHON_PURE=1` in the environment forces the readable ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

NATIVE: bool
"""Whether the native twin runs."""

if TYPE_CHECKING:
    from .frames import encode_frame, encode_message, mask
    from .parser import Parser
else:
    try:
        if os.environ.get("ANTIPHON_PURE") == "1":
            raise ImportError("the pure twin is asked for")
        from ._native import Parser, encode_frame, encode_message, mask

        NATIVE = True
    except ImportError:
        from .frames import encode_frame, encode_message, mask
        from .parser import Parser

        NATIVE = False

__all__ = ["NATIVE", "Parser", "encode_frame", "encode_message", "mask"]
