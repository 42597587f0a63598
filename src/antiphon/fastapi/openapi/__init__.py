"""FastAPI's package of this name: of OpenAPI, antiphon has only what security classes take."""
