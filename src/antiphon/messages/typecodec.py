"""One type's way to and from JSON: its validator, its serializer, its schema. The seam behind which pydantic stands.

Knows nothing of tags, wires or connections: classes of other libraries need another implementation of `Codec`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from pydantic import BaseModel, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from antiphon.connection import codec
from antiphon.connection.typed import adapter_of, failures
from antiphon.exceptions import InvalidMessage, RegistrationError, UndeclaredMessage
from antiphon.rawbytes import check_no_bytes
from antiphon.tags import bare, members


class Codec(Protocol):
    """A channel's interface to a type."""

    annotation: Any
    """The type as it was annotated."""

    def validate(self, data: str | bytes) -> Any:
        """The value of JSON text. Raises pydantic's ValidationError."""

    def validate_value(self, value: Any) -> Any:
        """The value of decoded JSON. Raises `InvalidMessage`."""

    def encode(self, value: Any) -> str:
        """The JSON text of a value. Raises `UndeclaredMessage` for a value that is not of the type or has no JSON
        form."""


class PydanticCodec:
    """`Codec` for everything that pydantic validates."""

    __slots__ = ("_exact", "_serializer", "adapter", "annotation", "validate")

    def __init__(self, annotation: Any) -> None:
        """Raises TypeError for a type that pydantic cannot validate."""
        self.annotation: Any = annotation
        self.adapter: Final[TypeAdapter[Any]] = adapter_of(annotation)
        """Also the way to the type's schema: `adapter.core_schema`, `TypeAdapter.json_schemas`."""
        self.adapter.rebuild(raise_errors=True)  # for models that name classes written behind them
        self._serializer = self.adapter.serializer
        self.validate: Callable[..., Any]
        self._exact = frozenset(filter(_is_settled, map(bare, members(annotation))))
        """Classes whose values need no second look: to ask pydantic for one costs twice the writing."""
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            # The adapter of a model that is not complete yet has a stand-in.
            self.validate = annotation.__pydantic_validator__.validate_json
        else:
            self.validate = self.adapter.validator.validate_json

    def validate_value(self, value: Any) -> Any:
        """`Codec`."""
        try:
            return self.adapter.validate_python(value)
        except ValidationError as exc:
            raise InvalidMessage(failures(exc)) from None

    def encode(self, value: Any) -> str:
        """`Codec`: as pydantic writes it, fields by their aliases."""
        if value is None:  # which pydantic writes for any type, without a warning
            self._check_none()
        try:
            if type(value) in self._exact:
                return self._serializer.to_json(value, by_alias=True, warnings=False).decode()
            return self._serializer.to_json(value, by_alias=True, warnings="error").decode()
        except PydanticSerializationError as exc:
            error = exc
        try:  # a lone surrogate, which goes back as the escape it came as
            plain = self._serializer.to_python(value, mode="json", by_alias=True, warnings="error")
            return codec.escaped(codec.encode_json(plain))
        except (PydanticSerializationError, TypeError, ValueError):
            raise UndeclaredMessage(
                f"a value of {type(value).__name__} is not of the declared type, {shown_type(self.annotation)}: {error}"
            ) from None

    def _check_none(self) -> None:
        try:
            self.adapter.validator.validate_python(None)
        except ValidationError:
            raise UndeclaredMessage(
                f"None is not of the declared type, {shown_type(self.annotation)}: a `return` may be missing"
            ) from None


def _is_settled(kind: Any) -> bool:
    """Whether a value's class alone proves that it fits the declaration: a model was validated when it was made."""
    return isinstance(kind, type) and (kind in (int, str, bool, float, type(None)) or issubclass(kind, BaseModel))


def codec_of(annotation: Any, where: str) -> PydanticCodec:
    """The type's codec. Raises RegistrationError, naming `where`, for a type that pydantic cannot validate."""
    try:
        return PydanticCodec(annotation)
    except TypeError as exc:
        raise RegistrationError(f"{where}: {exc}") from None
    except (PydanticUserError, PydanticUndefinedAnnotation) as exc:  # a name in a field's annotation that is not there
        raise RegistrationError(f"{where}: {shown_type(annotation)} cannot be validated: {exc.message}") from None


def sent_codec_of(annotation: Any, where: str) -> PydanticCodec:
    """As `codec_of`, for outgoing types. Raises RegistrationError also for bytes that would be written as text."""
    made = codec_of(annotation, where)
    check_no_bytes(made.adapter, where)
    return made


def shown_type(annotation: Any) -> str:
    """A type as errors name it."""
    return getattr(annotation, "__qualname__", None) or str(annotation)


def inner_json(value: Any) -> bytes:
    """A part of a decoded message as JSON text again, so that it is validated as JSON is."""
    return to_json(value, inf_nan_mode="constants")
