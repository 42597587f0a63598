"""How far a test looks that searches: random lives from seeds, and examples that hypothesis makes up.

Every run of the suite takes the same few, which are quick. `ANTIPHON_TEST_SEARCH=35` takes thirty-five times as many,
as the scheduled job does each night. `python -m tests.hub.simulation` and its like go on as long as they are told.
"""

from __future__ import annotations

import os
from typing import Final

FACTOR: Final = float(os.environ.get("ANTIPHON_TEST_SEARCH", "1"))


def some(count: int) -> int:
    """So many, times the factor."""
    return max(1, round(count * FACTOR))
