"""The client side: a connection that comes back, for pages (`runtime.js`) and for Python (`runtime.py`).

`javascript` is the ES module as an ASGI app, for `add_route`. Imports nothing of ours, so that everything may serve it.
`antiphon.clients.runtime` is imported by who uses it: it needs `websockets`.
"""

from .served import ReadOnlyText as ReadOnlyText
from .served import javascript as javascript
from .served import runtime_js as runtime_js
from .served import runtime_py as runtime_py
from .served import runtime_ts as runtime_ts
from .served import runtime_types as runtime_types
