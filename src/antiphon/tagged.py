"""Messages with a tag: which classes a declared type is made of, which tag each has, and its JSON.

A message is an ordinary pydantic model, dataclass or TypedDict. Its tag is the value of its `Literal` field `type`, or
the name of its class in snake case, which is then written in front of its fields. Knows nothing of connections, topics
or routes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, get_args, get_origin

from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from typing_extensions import is_typeddict

from . import tags
from .exceptions import InvalidMessage, RegistrationError, UndeclaredMessage
from .rawbytes import check_no_bytes

if TYPE_CHECKING:
    from typing_extensions import TypeForm

M = TypeVar("M")

TAG: Final = "type"
"""The field that says which message it is."""

_BRACE: Final = ord("{")

_KNOWN_CLASSES: Final = 1024
"""Classes an encoder remembers: more than a program has messages, and a bound for one that makes classes as it runs."""


def name_of(kind: Any) -> str:
    """A type's name in errors."""
    return kind.__qualname__ if isinstance(kind, type) and not get_args(kind) else str(kind)


class Tagged:
    """One class of messages."""

    __slots__ = ("_head", "_write", "adapter", "kind", "own", "tags")

    def __init__(self, kind: Any, tags: tuple[str, ...], own: bool, adapter: TypeAdapter[Any]) -> None:
        self.kind: Final = kind
        self.tags: Final = tags
        """The values that the tag may have; more than one only of a `Literal` field with several."""
        self.own: Final = own
        """The tag is a field of the message's own; else it is written in front of its fields."""
        self.adapter: Final = adapter
        self._write = adapter.serializer.to_json
        self._head = b'{"%s":%s,' % (TAG.encode(), to_json(tags[0]))

    @property
    def tag(self) -> str:
        """The first of its tags: its name where it needs one."""
        return self.tags[0]

    @property
    def forbids_extra(self) -> bool:
        """The class refuses fields it does not know, and so a tag that is none of its own."""
        config = getattr(self.kind, "model_config", None) or getattr(self.kind, "__pydantic_config__", None) or {}
        return config.get("extra") == "forbid"

    def encode(self, message: Any) -> bytes:
        """JSON with the tag first, as the declared class writes it: no field of a subclass is in it.

        Raises PydanticSerializationError, or TypeError for a class that is not written as an object.
        """
        body = self._write(message, by_alias=True)
        if self.own:
            return body
        if body[0] != _BRACE:
            raise TypeError(f"{name_of(self.kind)} is written as {body[:20]!r}, and a message is a JSON object")
        return self._head + body[1:] if len(body) > 2 else self._head[:-1] + b"}"


def tagged(kind: Any, where: str) -> Tagged:
    """The class as a message. Raises RegistrationError, which begins with `where`, for a class that cannot be one."""
    if not tags.is_message_class(kind) or tags.is_root_model(kind):
        raise RegistrationError(
            f"{where}: a message is a pydantic model, a dataclass or a TypedDict, and not {name_of(kind)}"
        )
    own = tags.literal_tags(kind, TAG, tags.Direction.OUT)
    if own == ():
        raise RegistrationError(
            f"{where}: {name_of(kind)} has a field {TAG!r} that is not its tag: make it a Literal of strings, or give "
            "it another name"
        )
    if own is None and is_typeddict(kind):
        raise RegistrationError(
            f"{where}: {name_of(kind)} is a TypedDict, whose values do not carry its name: give it the field "
            f'`{TAG}: Literal["{tags.class_tag(kind)}"]`'
        )
    if own is None and tags.is_generic(kind):
        raise RegistrationError(
            f'{where}: {name_of(kind)} is generic, and its name is no tag: give it `{TAG}: Literal["…"]`'
        )
    found = own or (tags.class_tag(kind),)
    for problem in filter(None, map(tags.problem_of, found)):
        raise RegistrationError(f"{where}: {name_of(kind)}: {problem}")
    adapter = _adapter(kind, where)
    check_no_bytes(adapter, where)
    return Tagged(kind, found, own is not None, adapter)


def _adapter(kind: Any, where: str) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        adapter.rebuild(raise_errors=True)
    except (PydanticUserError, PydanticUndefinedAnnotation, NameError) as error:
        fault = str(error).splitlines()[0]
        raise RegistrationError(f"{where}: {name_of(kind)} cannot be validated: {fault}") from error
    return adapter


class MessageSet(Generic[M]):
    """The messages that one declared type allows, by class and by tag."""

    def __init__(self, kind: TypeForm[M], where: str, reserved: frozenset[str] = frozenset()) -> None:
        """`reserved` are tags that mean something else here.

        Raises RegistrationError, which begins with `where`, for a type that holds no messages, for two with one tag,
        and for a reserved one.
        """
        self.kind = kind
        found = [tags.bare(member) for member in tags.members(kind)]
        for member in found:
            if not isinstance(member, Hashable):
                raise RegistrationError(
                    f"{where}: a message is a pydantic model, a dataclass or a TypedDict, and not {member!r}"
                )
        self.types: tuple[Tagged, ...] = tuple(tagged(member, where) for member in dict.fromkeys(found))
        self._by_tag: dict[str, Tagged] = {}
        self._by_class: dict[type, Tagged | None] = {}
        for one in self.types:
            for tag in one.tags:
                other = self._by_tag.setdefault(tag, one)
                if other is not one:
                    raise RegistrationError(
                        f"{where}: {name_of(other.kind)} and {name_of(one.kind)} have the same tag {tag!r}"
                    )
                if tag in reserved:
                    raise RegistrationError(f"{where}: the tag {tag!r} of {name_of(one.kind)} has a meaning of its own")
            self._by_class[get_origin(one.kind) or one.kind] = one
        self._by_class.pop(dict, None)

    @property
    def tags(self) -> frozenset[str]:
        """Of all of them."""
        return frozenset(self._by_tag)

    @property
    def names(self) -> str:
        """The messages' names in errors."""
        return " | ".join(name_of(one.kind) for one in self.types)

    def find(self, message: object) -> Tagged:
        """The declared class of a message; of a subclass the next one above. Raises `UndeclaredMessage`."""
        found = self._by_class.get(type(message)) or self._search(type(message), message)
        if found is None:
            what = f"the class {message.__name__}" if isinstance(message, type) else shown_type(type(message))
            raise UndeclaredMessage(f"expected {self.names}, got {what}")
        return found

    def _search(self, cls: type, message: object) -> Tagged | None:
        if isinstance(message, dict):
            tag = message.get(TAG)
            found = self._by_tag.get(tag) if isinstance(tag, str) else None
            return found if found is not None and is_typeddict(found.kind) else None
        if cls not in self._by_class and len(self._by_class) < _KNOWN_CLASSES:
            above = (self._by_class.get(base) for base in cls.__mro__[1:])
            self._by_class[cls] = next((one for one in above if one is not None), None)
        return self._by_class.get(cls)

    def encode(self, message: M) -> bytes:
        """The message as JSON. Raises `UndeclaredMessage`, and as `Tagged.encode`."""
        return self.find(message).encode(message)

    def decode(self, payload: bytes) -> M:
        """The message of a JSON text. Raises `InvalidMessage`."""
        value = _parsed(payload)
        tag = value.get(TAG) if isinstance(value, dict) else None
        one = self._by_tag.get(tag) if isinstance(tag, str) else None
        if one is None:
            text = "expected an object" if not isinstance(value, dict) else f"expected one of {', '.join(self._by_tag)}"
            raise InvalidMessage([{"type": "unknown_type", "loc": (TAG,), "msg": text}])
        if one.forbids_extra and not one.own:
            del value[TAG]
            payload = to_json(value)
        message: M = _checked(lambda: one.adapter.validate_json(payload), lambda: one.adapter.validate_python(value))
        return message


def shown_type(cls: type) -> str:
    """A class in an error: its module, too, since another one of that name may be meant."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _parsed(payload: bytes) -> Any:
    try:
        return from_json(payload)
    except ValueError:
        pass
    try:  # the standard library has the last word (lone surrogates, nesting)
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        text = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise InvalidMessage([{"type": "json_invalid", "loc": (), "msg": text}]) from None


def _checked(quickly: Callable[[], M], slowly: Callable[[], M]) -> M:
    try:
        try:
            return quickly()
        except ValidationError as error:
            if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] != "json_invalid":
                raise
        return slowly()
    except ValidationError as error:
        failures = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidMessage([dict(failure) for failure in failures]) from None
