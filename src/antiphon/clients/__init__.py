"""The client side: a connection that comes back, for pages (`runtime.js`) and for Python (`runtime.py`).

`javascript` is the ES module as an ASGI app, for `add_route`. Imports nothing of ours, so that everything may serve it.
Users import `antiphon.clients.runtime` themselves: it needs `websockets`.
"""

from typing import TYPE_CHECKING

from antiphon.lazily import lazily

from .served import ReadOnlyText, javascript, runtime_js, runtime_py, runtime_ts, runtime_types

__all__ = ["ReadOnlyText", "javascript", "runtime_js", "runtime_py", "runtime_ts", "runtime_types"]

if not TYPE_CHECKING:  # for the advice of `antiphon.misspelt`
    __getattr__, __dir__ = lazily(__name__, {})
