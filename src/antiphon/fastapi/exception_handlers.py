"""FastAPI's module of this name."""

from antiphon.routing.default_handlers import http_exception_handler as http_exception_handler
from antiphon.routing.default_handlers import (
    request_validation_exception_handler as request_validation_exception_handler,
)
from antiphon.routing.default_handlers import (
    websocket_request_validation_exception_handler as websocket_request_validation_exception_handler,
)
