"""FastAPI's module of this name."""

from antiphon.exceptions import DependencyScopeError as DependencyScopeError
from antiphon.exceptions import HTTPException as HTTPException
from antiphon.exceptions import ParameterErrors, RegistrationError
from antiphon.exceptions import RequestValidationError as RequestValidationError
from antiphon.exceptions import ResponseValidationError as ResponseValidationError
from antiphon.exceptions import WebSocketException as WebSocketException
from antiphon.exceptions import WebSocketRequestValidationError as WebSocketRequestValidationError

FastAPIError = RegistrationError
ValidationException = ParameterErrors
