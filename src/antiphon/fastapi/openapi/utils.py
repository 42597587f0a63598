"""FastAPI's module of this name, which antiphon does not have."""

raise ImportError("antiphon makes no OpenAPI: keep these routes in a FastAPI app and mount it (docs/porting.md)")
