"""FastAPI's module of this name."""

from antiphon.middleware.gzip import GZipMiddleware as GZipMiddleware
