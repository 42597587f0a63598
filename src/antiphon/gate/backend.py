"""Chooses the twin that spends from buckets, once: the native one where it was built, else the readable one.

`ANTIPHON_PURE=1` in the environment forces the readable one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .spending import Bucket, Purse, Spending, Table
else:
    try:
        if os.environ.get("ANTIPHON_PURE") == "1":
            raise ImportError("the pure twin is asked for")
        from ._spending import Bucket, Purse, Spending, Table
    except ImportError:
        from .spending import Bucket, Purse, Spending, Table

__all__ = ["Bucket", "Purse", "Spending", "Table"]
