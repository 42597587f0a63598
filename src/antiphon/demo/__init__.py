"""The chat room that `antiphon demo` serves: antiphon at work, to look at and to read.

`app.py` is the whole server. `static/` is the page, plain files without a build step.
"""

from .app import app as app
