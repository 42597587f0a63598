"""FastAPI's module of this name."""

from antiphon.middleware.httpsredirect import HTTPSRedirectMiddleware as HTTPSRedirectMiddleware
