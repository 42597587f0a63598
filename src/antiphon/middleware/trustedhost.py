"""TrustedHostMiddleware, which is Starlette's."""

from starlette.middleware.trustedhost import TrustedHostMiddleware as TrustedHostMiddleware
