"""FastAPI's module of this name."""

from antiphon.status import *  # noqa: F403  the whole table
