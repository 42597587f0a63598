"""FastAPI's module of this name."""

from antiphon.staticfiles import StaticFiles as StaticFiles
