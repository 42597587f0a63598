"""The gate: admission, its lifetime, and rates. README.md has the design."""

from typing import TYPE_CHECKING

from antiphon.connection.denials import Denials
from antiphon.identity import Identity
from antiphon.lazily import lazily

from .admission import admit, renew
from .allowances import Per
from .bearer import WebSocketBearer
from .challenge import InvalidToken
from .jwks import JWKS
from .jwt import JWT
from .middleware import OriginMiddleware
from .origins import SAME, Foreign, Origins
from .quotas import Over, Quota, WhileAway
from .rates import ADDRESS, CLOSE, CONNECTION, REPLY, TOPIC, USER, WAIT, OverRate, Rate, TooFast
from .refusals import note_refusal
from .scopes import requires
from .secrets import SecretFilter
from .sources import COOKIE, FIRST_MESSAGE, HEADER, QUERY, SUBPROTOCOL, TokenSource
from .tickets import Tickets

__all__ = [
    "ADDRESS",
    "CLOSE",
    "CONNECTION",
    "COOKIE",
    "FIRST_MESSAGE",
    "HEADER",
    "JWKS",
    "JWT",
    "QUERY",
    "REPLY",
    "SAME",
    "SUBPROTOCOL",
    "TOPIC",
    "USER",
    "WAIT",
    "Denials",
    "Foreign",
    "Identity",
    "InvalidToken",
    "OriginMiddleware",
    "Origins",
    "Over",
    "OverRate",
    "Per",
    "Quota",
    "Rate",
    "SecretFilter",
    "Tickets",
    "TokenSource",
    "TooFast",
    "WebSocketBearer",
    "WhileAway",
    "admit",
    "note_refusal",
    "renew",
    "requires",
]

if not TYPE_CHECKING:  # for the advice of `antiphon.misspelt`
    __getattr__, __dir__ = lazily(__name__, {})
