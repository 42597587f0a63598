"""HTTPSRedirectMiddleware, which is Starlette's."""

from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware as HTTPSRedirectMiddleware
