"""The console: a page that connects to the channels of a document, sends messages and shows the incoming ones.

A few files without a build step, under a policy that lets nothing in from elsewhere. It knows the document alone.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Final

from starlette.responses import Response

FOLDER: Final = Path(__file__).parent
KINDS: Final = {"console.js": "text/javascript", "console.css": "text/css", "console.svg": "image/svg+xml"}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page(path: str, document: str, root: str) -> Response:
    """The page that is served at `path`. `document` is the path of its document, `root` that of the app. Both whole."""
    text = (FOLDER / "console.html").read_text("utf-8")
    for name, value in {"base": root + path, "document": root + document, "root": root}.items():
        text = text.replace("{{" + name + "}}", html.escape(value, quote=True))
    return Response(text, headers=HEADERS, media_type="text/html")


def file(name: str) -> Response | None:
    """A file of the page. None for anything else."""
    kind = KINDS.get(name)
    return None if kind is None else Response((FOLDER / name).read_bytes(), headers=HEADERS, media_type=kind)
