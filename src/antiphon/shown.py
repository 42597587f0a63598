"""A peer's text in a log line or an error: on that one line, in the order in which it is read, and short.

Part of the vocabulary: knows nothing of ours. A path, an origin, a subprotocol, a topic, a header's value, a reason, a
user's name: every text from the wire goes through `shown` on its way to a log.
"""

from __future__ import annotations

from typing import Final

LONGEST: Final = 500
"""Characters of one value: more than an honest path has, and too few to fill a log."""


def shown(value: object, longest: int = LONGEST) -> str:
    """`value` as text without line breaks, control characters (C0, C1, ESC), separators or marks of direction.

    Each of these, and a lone surrogate, is shown as its Python escape (`\\n`, `\\x9b`, `\\u202e`); printable characters
    stay as they are, in any script. At most `longest` characters of the value, then `…`. Never raises for a str or
    bytes.
    """
    if isinstance(value, str):
        text = str(value)
    else:
        text = value.decode("latin-1") if isinstance(value, bytes | bytearray) else str(value)
    cut = len(text) > longest
    if cut:
        text = text[:longest]
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else _escaped(sign) for sign in text)
    return f"{text}…" if cut else text


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")
