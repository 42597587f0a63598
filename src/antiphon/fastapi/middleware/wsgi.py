"""FastAPI's module of this name, which antiphon does not have."""

raise ImportError("antiphon has no WSGIMiddleware: mount that of the package a2wsgi, as Starlette advises")
