"""The gate: who may come in, for how long, and how much. README.md has the design."""

from antiphon.identity import Identity

from .admission import admit
from .bearer import WebSocketBearer
from .challenge import InvalidToken
from .quotas import Over, Quota, WhileAway
from .refusals import note_refusal
from .scopes import requires
from .sources import COOKIE, FIRST_MESSAGE, HEADER, QUERY, SUBPROTOCOL, TokenSource
from .tickets import Tickets

__all__ = [
    "COOKIE",
    "FIRST_MESSAGE",
    "HEADER",
    "QUERY",
    "SUBPROTOCOL",
    "Identity",
    "InvalidToken",
    "Over",
    "Quota",
    "Tickets",
    "TokenSource",
    "WebSocketBearer",
    "WhileAway",
    "admit",
    "note_refusal",
    "requires",
]
