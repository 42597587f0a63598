"""FastAPI's package of this name: of OpenAPI, antiphon has only the arguments of security classes."""
