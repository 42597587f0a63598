"""The description of a channel: its messages, handlers, answers, errors and events. Documents and clients read it.

`describe_handler` makes a registered function a `HandlerShape`, and refuses one that can never work. Nothing here
runs a handler.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn, get_args, get_origin

from pydantic import Discriminator
from pydantic.fields import FieldInfo

from antiphon import tags
from antiphon.dependencies.inspection import CallKind, Unresolved, call_kind, describe, returned, warn_about
from antiphon.dependencies.layers import CallPlan
from antiphon.dependencies.plan import Plan
from antiphon.exceptions import RegistrationError
from antiphon.gate.rates import Rate

from .errors import MessageError, is_error_class
from .options import ChannelOptions, Wire
from .outgoing import Outgoing, check_distinct, event_problem, outgoing_of
from .typecodec import Codec, codec_of, sent_codec_of, shown_type


class AnswerKind(enum.Enum):
    """The kind of a handler's answer."""

    ACK = "ack"
    """`reply` without data."""
    VALUE = "value"
    """`reply` with data, to a client that asked with a `ref`."""
    EVENT = "event"
    """The same, and the message itself, as an event, to a client that did not ask."""
    STREAM = "stream"
    """Any number of `item`, then `end`. A `ref` is demanded."""


class HandlerKind(enum.Enum):
    """The kind of message that reaches a handler."""

    MESSAGE = "message"
    BYTES = "bytes"
    FALLBACK = "fallback"


class Strip(enum.Enum):
    """Which of a channel's own keys are taken out of a message before it is validated."""

    NOTHING = "nothing"
    REF = "ref"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One message from the client."""

    tag: str
    codec: Codec | None
    """None: a message without fields."""
    strip: Strip = Strip.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A function under `@chat.on`, with its options."""

    call: Callable[..., Any]
    kind: HandlerKind = HandlerKind.MESSAGE
    tag: str | None = None
    errors: tuple[Any, ...] = ()
    concurrent: int | None = None
    timeout: float | None = None
    deprecated: bool = False
    rate: Rate | None = None
    prefix: str = ""
    """Of the groups it is in."""
    dependencies: tuple[Any, ...] = ()
    """`Depends` of the groups it is in."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandlerShape:
    """One handler of a channel."""

    name: str
    """The function's."""
    label: str
    """Module and qualified name."""
    call: Callable[..., Any]
    description: str
    """The docstring."""
    kind: HandlerKind
    messages: tuple[Incoming, ...]
    """More than one for a union and for a `Literal` of several values; none for bytes and the fallback."""
    answer: AnswerKind
    reply: Codec | None
    """Of the reply's data, or of a stream's items. None for an ack."""
    events: tuple[Outgoing, ...]
    """The event that an answer of kind EVENT is without a `ref`."""
    errors: tuple[type[MessageError], ...]
    deprecated: bool
    concurrent: int
    timeout: float | None
    rate: Rate | None
    plan: CallPlan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RenewalShape:
    """A channel's own messages about the identity of its client."""

    incoming: Incoming
    reply: Codec
    event: Outgoing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChannelShape:
    """One channel at one path."""

    name: str
    path: str
    """The whole path, prefixes included, without converters."""
    description: str
    """The connection function's docstring."""
    wire: Wire
    options: ChannelOptions
    plan: Plan
    """Of the connection: `plan.steps` and `plan.endpoint` hold the readers of path, query, headers and cookies, also
    those that handlers asked for, and the callables of dependencies, security schemes among them."""
    handlers: tuple[HandlerShape, ...]
    bytes_handler: HandlerShape | None
    fallback: HandlerShape | None
    renewal: RenewalShape | None
    """Where documents say that clients renew their identity."""
    heartbeat: Outgoing | None
    """The event that says that the link is alive, where the options want one."""
    sends: tuple[Outgoing, ...]
    """Events: of `sends=`, of `Caller[...]`, and those that answers of kind EVENT are."""


_STREAMS: Final = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)
_SYNC_STREAMS: Final = (collections.abc.Iterator, collections.abc.Generator)


def describe_handler(registered: Registered, plan: CallPlan, options: ChannelOptions) -> HandlerShape:
    """The shape of a registered function. Raises RegistrationError, naming it, where it can never work."""
    call, wire = registered.call, options.wire
    label = describe(call)
    answer, reply, events = _answer(call, label, registered.kind, wire)
    if registered.concurrent is not None and answer is AnswerKind.STREAM:
        warn_about(call, f"{label} is a stream, for which concurrent= does nothing: ChannelOptions(streams=) bounds it")
    concurrent = options.concurrent if registered.concurrent is None else registered.concurrent
    return HandlerShape(
        name=getattr(call, "__name__", type(call).__name__),
        label=label,
        call=call,
        description=inspect.getdoc(call) or "",
        kind=registered.kind,
        messages=_messages(registered, plan, wire, label),
        answer=answer,
        reply=reply,
        events=events,
        errors=_errors(registered.errors, label),
        deprecated=registered.deprecated,
        concurrent=concurrent,
        timeout=options.timeout if registered.timeout is None else registered.timeout,
        rate=registered.rate,
        plan=plan,
    )


def _errors(errors: tuple[Any, ...], label: str) -> tuple[type[MessageError], ...]:
    codes: dict[str, type[MessageError]] = {}
    for error in errors:
        if not is_error_class(error):
            raise RegistrationError(f"{label}: errors= takes subclasses of MessageError, not {error!r}")
        if codes.setdefault(error.code, error) is not error:
            raise RegistrationError(f"{label}: two errors have the code {error.code!r}")
        sent_codec_of(error, label)
    return tuple(codes.values())


def _messages(registered: Registered, plan: CallPlan, wire: Wire, label: str) -> tuple[Incoming, ...]:
    if registered.kind is not HandlerKind.MESSAGE:
        if plan.message is None:
            wanted = "bytes" if registered.kind is HandlerKind.BYTES else "dict[str, Any]"
            raise RegistrationError(f"{label} has no parameter for the message: add `message: {wanted}`")
        return ()
    if plan.message is None:
        if registered.tag is None:
            raise RegistrationError(
                f"{label} has no message: annotate a parameter with a model, a dataclass or a TypedDict, or name the "
                f'message, @chat.on("{getattr(registered.call, "__name__", "tag")}")'
            )
        return (Incoming(tag=_checked(registered.prefix + registered.tag, label), codec=None),)
    outer, kinds = _members(plan.annotation)
    if registered.tag is not None and len(kinds) > 1:
        raise RegistrationError(
            f"{label}: one tag, {registered.tag!r}, cannot tell several messages apart; leave it out"
        )
    where = f"{label}: parameter {plan.message!r}"
    found = [one for kind in kinds for one in _incoming(kind, outer, registered, wire, where)]
    for number, one in enumerate(found):
        if any(one.tag == other.tag for other in found[:number]):
            raise RegistrationError(f"{where}: two messages have the tag {one.tag!r}")
    return tuple(found)


def _members(annotation: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The validators in `Annotated` around the message, and the union's members."""
    annotation = tags.without_alias(annotation)
    outer: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        # A discriminator has nothing left to do; a marker only said that this is the message.
        outer = tuple(one for one in metadata if not isinstance(one, Discriminator | FieldInfo))
        annotation = inner
    return outer, tags.members(annotation)


def _incoming(kind: Any, outer: tuple[Any, ...], registered: Registered, wire: Wire, where: str) -> list[Incoming]:
    codec = codec_of(Annotated[(kind, *outer)] if outer else kind, where)
    name = shown_type(tags.bare(kind))
    own: tuple[str, ...] | None = None
    is_bare = tags.is_root_model(kind) and wire.content is None
    if tags.is_message_class(kind) and not is_bare:
        _check_fields(kind, wire, where)
        own = tags.literal_tags(kind, wire.tag, tags.Direction.IN) or None
    elif tags.bare(kind) is type(None):
        raise RegistrationError(f"{where} is the message, which is always there, and never None")
    elif registered.tag is None and not is_bare:
        if wire.content is None and not _is_mapping(kind):
            raise RegistrationError(f"{where}: {name} is no class of messages: a model, a dataclass or a TypedDict")
        raise RegistrationError(f"{where}: {name} has no name to be the tag: give one, @chat.on('tag')")
    elif wire.content is None and not _is_mapping(kind):
        raise RegistrationError(
            f"{where}: {name} is no object, and fields stand beside the tag; nest them, Wire(content='data')"
        )
    if own is not None and wire.content is None:
        if registered.prefix:
            raise RegistrationError(
                f"{where}: the Literal field {wire.tag!r} of {name} says the whole tag, and the group has the prefix "
                f"{registered.prefix!r}; leave one of them out"
            )
        if registered.tag is not None and registered.tag not in own:
            raise RegistrationError(f"{where}: the Literal field {wire.tag!r} of {name} is never {registered.tag!r}")
    if registered.tag is not None:
        chosen: tuple[str, ...] = (registered.tag,)
    elif own is not None:
        chosen = own
    elif tags.is_generic(kind):
        raise RegistrationError(f"{where}: {name} is generic, so its name is no tag: give one, @chat.on('tag')")
    else:
        chosen = (tags.class_tag(kind),)
    strip = Strip.NOTHING if wire.content is not None else _strip(kind, own)
    return [Incoming(tag=_checked(registered.prefix + tag, where), codec=codec, strip=strip) for tag in chosen]


def _check_fields(kind: Any, wire: Wire, where: str) -> None:
    if wire.content is not None:
        return
    name = shown_type(tags.bare(kind))
    if tags.literal_tags(kind, wire.tag, tags.Direction.IN) == ():
        raise RegistrationError(
            f"{where}: the field {wire.tag!r} of {name} is not its tag, a Literal of strings; rename it, or nest the "
            "fields: Wire(content='data')"
        )
    if wire.ref in tags.fields_of(kind, tags.Direction.IN):
        raise RegistrationError(
            f"{where}: the field {wire.ref!r} of {name} has the name of the key that identifies a request; rename it, "
            "or nest the fields: Wire(content='data')"
        )


def _strip(kind: Any, own: tuple[str, ...] | None) -> Strip:
    """A class that forbids or keeps extra fields is not to see a channel's own."""
    bare = tags.bare(kind)
    cls = get_origin(bare) or bare
    if not tags.is_message_class(kind):
        return Strip.BOTH
    config: Mapping[str, Any] = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}
    if config.get("extra") not in ("forbid", "allow"):
        return Strip.NOTHING
    return Strip.BOTH if own is None else Strip.REF


def _is_mapping(kind: Any) -> bool:
    bare = tags.bare(kind)
    cls = get_origin(bare) or bare
    return isinstance(cls, type) and issubclass(cls, collections.abc.Mapping)


def _checked(tag: str, where: str) -> str:
    if (problem := tags.problem_of(tag)) is not None:
        raise RegistrationError(f"{where}: {problem}")
    return tag


def _answer(
    call: Any, label: str, kind: HandlerKind, wire: Wire
) -> tuple[AnswerKind, Codec | None, tuple[Outgoing, ...]]:
    declared = returned(call)
    if isinstance(declared, Unresolved):
        raise RegistrationError(f"{label} returns an unknown type, {declared.text!r}: {declared.error}")
    made = call_kind(call)
    bare = tags.bare(declared)
    origin = get_origin(bare) or bare
    if made is CallKind.SYNC_GENERATOR or origin in _SYNC_STREAMS:
        raise RegistrationError(f"{label} is a generator without `async`; a stream is an `async def` with `yield`")
    where = f"{label}: what it returns"
    if made is CallKind.ASYNC_GENERATOR or origin in _STREAMS:
        if kind is HandlerKind.BYTES:
            raise RegistrationError(f"{label}: a binary message cannot ask for a stream: send with a Caller")
        if origin not in (*_STREAMS, inspect.Parameter.empty, Any):
            raise RegistrationError(
                f"{label} is an async generator, so it returns an AsyncIterator[...] of its items, not "
                f"{shown_type(bare)}"
            )
        items = (get_args(bare) or (Any,))[0] if declared is not inspect.Parameter.empty else Any
        return AnswerKind.STREAM, sent_codec_of(items, where), ()
    if declared in (inspect.Parameter.empty, None, type(None), NoReturn):
        return AnswerKind.ACK, None, ()
    codec = sent_codec_of(declared, where)
    members = [one for one in tags.members(declared) if tags.bare(one) is not type(None)]
    if all(tags.is_message_class(one) and event_problem(one, wire) is None for one in members):
        return AnswerKind.EVENT, codec, tuple(one for member in members for one in outgoing_of(member, wire, where))
    if kind is HandlerKind.BYTES:
        raise RegistrationError(f"{label}: a binary message cannot ask for an answer: send with a Caller")
    return AnswerKind.VALUE, codec, ()


def sent_by(
    name: str, declared: tuple[tuple[str, Any], ...], handlers: tuple[HandlerShape, ...], wire: Wire
) -> tuple[Outgoing, ...]:
    """All events of a channel: those `declared`, and unasked answers of its handlers."""
    found = [one for where, annotation in declared for one in outgoing_of(annotation, wire, where)]
    found += [one for handler in handlers for one in handler.events]
    return check_distinct(found, name)
