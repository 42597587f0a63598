"""The servers that `sieges.py` and `ordeals.py` compare."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """A server, and how uvicorn is told to run it."""

    NATIVE = "native"
    PURE = "pure"
    STOCK = "stock"
    """FastAPI on uvicorn's own protocols."""

    @property
    def words(self) -> tuple[str, ...]:
        if self is Kind.STOCK:
            return ("--ws", "websockets-sansio")
        return ("--ws", "antiphon.server:WebSocketProtocol", "--http", "antiphon.server:HTTPProtocol")

    @property
    def environment(self) -> Mapping[str, str]:
        return {"ANTIPHON_PURE": "1"} if self is Kind.PURE else {}

    def tracebacks(self, log: Path) -> str:
        """What there is to add to a row."""
        count = log.read_text(errors="replace").count("Traceback (")
        return f"; {count} TRACEBACKS" if count else ""
