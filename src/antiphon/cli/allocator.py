"""The C library's handling of freed memory. Knows nothing of its former use.

glibc gives a block back to the system at once while blocks of that size are mapped one by one. After the first large
one is freed it takes the next from its heap. There one small block above keeps all below it: a server that has held a
gigabyte of messages for a second shows a gigabyte for ever.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Final

LARGE: Final = 1 << 20
"""Bytes of a block that is mapped by itself: messages are rarely so large, and a mapping costs less than a copy."""

_M_MMAP_THRESHOLD: Final = -3
_SETTING: Final = "MALLOC_MMAP_THRESHOLD_"


def give_back_large_blocks(environ: Mapping[str, str] = os.environ) -> bool:
    """For the whole process. False: somebody has decided it already, or this is another C library."""
    if _SETTING in environ or "mmap_threshold" in environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE))
