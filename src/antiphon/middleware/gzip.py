"""GZipMiddleware, which is Starlette's."""

from starlette.middleware.gzip import GZipMiddleware as GZipMiddleware
