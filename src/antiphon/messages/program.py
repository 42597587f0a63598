"""A channel at one path, ready to run: its connection's plan, and the action for each tag.

A `Blueprint` is the source's declaration. A `Program` is its result below the prefixes, dependencies and options of the
routers around it. Everything is settled here, so that a message costs one lookup. Nothing here runs.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, Union, get_args, get_origin

from pydantic import ValidationError

from antiphon import tags
from antiphon.connection import WebSocket
from antiphon.connection.codec import decode_json
from antiphon.connection.typed import failures
from antiphon.dependencies import topics_of
from antiphon.dependencies.inspection import CallKind, Unresolved, call_kind, describe, returned
from antiphon.dependencies.layers import CONNECTION, CallSource, Layers, analyze_layers
from antiphon.dependencies.plan import Injected, Plan
from antiphon.exceptions import InvalidMessage, RegistrationError
from antiphon.gate.limits import NO_LIMITS, Limits

from .beats import Beats, beats_of, heartbeat_event
from .caller import Caller
from .frames import Frames
from .options import ChannelOptions
from .outgoing import Events, Outgoing, check_distinct
from .renewal import Renewal, renews
from .shape import (
    AnswerKind,
    ChannelShape,
    HandlerKind,
    HandlerShape,
    Incoming,
    Registered,
    Strip,
    describe_handler,
    sent_by,
)
from .typecodec import Codec, codec_of

Call = Callable[..., Any]

DEFAULT_OPTIONS: Final = ChannelOptions()

NOT_DECODED: Final = object()
"""In place of a message's decoded whole."""

SCALARS: Final = frozenset({str, int, float, bool, bytes, complex})

SIZED: Final = 64 << 10
"""Characters from which on a message is looked at before it is decoded, as `connection.codec` does."""


async def _nobody() -> None:
    """The connection function of a channel that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """A channel as it was written."""

    call: Call | None
    name: str
    path: str
    dependencies: tuple[Any, ...]
    options: ChannelOptions | None
    """Its own, or its router's. None: those of the app that it ends up in."""
    sends: Any
    """The union that `sends=` names. None for nothing."""
    subprotocol: str | None = None
    """The subprotocol that a client has to offer to be served here."""

    @property
    def label(self) -> str:
        """Its name in errors."""
        return f"channel {self.path!r}" if self.call is None else describe(self.call)


def check_blueprint(blueprint: Blueprint) -> None:
    """Raise RegistrationError for a connection function that can never work."""
    call = blueprint.call
    if call is not None:
        if not callable(call):
            raise RegistrationError(f"a channel's connection function is a function, not {call!r}")
        if call_kind(call) is CallKind.SYNC_GENERATOR:
            raise RegistrationError(
                f"{blueprint.label} is a generator without `async`; a connection function is an `async def`"
            )
    yielded_type(blueprint)
    Program(blueprint, (), path=blueprint.path)


def check_handler(
    blueprint: Blueprint, registered: Registered, sent: Sequence[Outgoing]
) -> tuple[HandlerShape, tuple[Outgoing, ...]]:
    """The shape of one handler where the channel was written, and all events: those `sent` by others, and its own.

    Raises RegistrationError for a handler that can never work.
    """
    program = Program(blueprint, (registered,), path=blueprint.path)
    return program.described[0], check_distinct([*sent, *program.shape.sends], program.described[0].label)


def yielded_type(blueprint: Blueprint) -> Any:
    """The type that the connection function yields, None for none. Raises RegistrationError."""
    call = blueprint.call
    if call is None or call_kind(call) is not CallKind.ASYNC_GENERATOR:
        return None
    declared = returned(call)
    if isinstance(declared, Unresolved):
        raise RegistrationError(f"{blueprint.label} yields an unknown type, {declared.text!r}: {declared.error}")
    bare = tags.bare(declared)
    if get_origin(bare) not in (
        collections.abc.AsyncIterator,
        collections.abc.AsyncGenerator,
        collections.abc.AsyncIterable,
    ):
        return None
    found = tags.bare((get_args(bare) or (None,))[0])
    if found in (None, type(None), Any, object):
        return None
    if found in SCALARS or get_origin(found) in (Union, types.UnionType, Literal):
        raise RegistrationError(
            f"{blueprint.label} yields {found!r}, which cannot be told from a parameter of the query: yield an object "
            "of a class of yours"
        )
    return found


class Action:
    """The handling of the messages of one tag."""

    __slots__ = (
        "call", "codec", "incoming", "is_alone", "is_event", "is_plain", "is_simple", "is_stream", "is_sync",
        "parameter", "rate", "reply", "shape", "validate",
    )  # fmt: skip

    def __init__(self, shape: HandlerShape, incoming: Incoming | None, *, nested: bool) -> None:
        self.shape: Final = shape
        self.incoming: Final = incoming
        self.call: Final = shape.call
        self.parameter: Final = shape.plan.message or ""
        """That gets the message. Empty where none does."""
        self.reply: Final = shape.reply
        self.is_stream: Final = shape.answer is AnswerKind.STREAM
        self.is_event: Final = shape.answer is AnswerKind.EVENT
        kind = shape.plan.target.kind
        self.is_sync: Final = kind is CallKind.SYNC
        self.codec: Final = incoming.codec if incoming is not None else None
        self.validate: Final = self.codec.validate if self.codec is not None else None
        target = shape.plan.target
        self.rate: Final = shape.rate
        plain = self.validate is not None and incoming is not None and incoming.strip is Strip.NOTHING and not nested
        in_line = not self.is_stream and shape.concurrent == 1 and shape.timeout is None
        self.is_plain: Final = plain and in_line and shape.rate is None
        """Validated as it came, and in line, where nothing interrupts it."""
        self.is_simple: Final = self.is_plain and kind is CallKind.ASYNC and not shape.plan.steps and not target.fresh
        """Nothing is needed but the function itself: the quick way."""
        constant = target.kept or target.given or target.constants
        self.is_alone: Final = self.is_simple and not constant and _takes_first(shape.call, self.parameter)
        """It takes the message and nothing else."""


def _takes_first(call: Call, name: str) -> bool:
    """Whether the parameter can be given by its place."""
    first = next(iter(inspect.signature(call).parameters.values()), None)
    return first is not None and first.name == name and first.kind is first.POSITIONAL_OR_KEYWORD


class _CallerMaker:
    """The dependency behind `Caller`: made once per connection. `events` are known when the whole channel is."""

    def __init__(self) -> None:
        self.events: Events | None = None

    async def __call__(self, websocket: WebSocket) -> Caller[Any]:
        assert self.events is not None
        return Caller(websocket, self.events)


class Program:
    """One channel at one path, with one set of overrides."""

    def __init__(
        self,
        blueprint: Blueprint,
        registered: Sequence[Registered],
        *,
        path: str,
        dependencies: Sequence[Any] | None = None,
        options: ChannelOptions | None = None,
        overrides: Mapping[Call, Call] | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.limits: Limits = limits
        self.options: ChannelOptions = blueprint.options or options or DEFAULT_OPTIONS
        self.blueprint: Blueprint = blueprint
        self.label: str = blueprint.label
        self.call: Call | None = blueprint.call
        self.kind: CallKind | None = None if self.call is None else call_kind(self.call)
        maker = _CallerMaker()
        layers = analyze_layers(
            self.call or _nobody,
            [
                CallSource(call=one.call, dependencies=one.dependencies, takes_bytes=one.kind is HandlerKind.BYTES)
                for one in registered
            ],
            path=path,
            dependencies=blueprint.dependencies if dependencies is None else dependencies,
            made={Caller: maker},
            yielded=yielded_type(blueprint),
            overrides=overrides,
        )
        self.plan: Plan = layers.plan
        self.shared: tuple[str, ...] = layers.shared
        """The connection function's own parameters that handlers get too."""
        self.described: tuple[HandlerShape, ...] = tuple(
            describe_handler(one, plan, self.options) for one, plan in zip(registered, layers.calls, strict=True)
        )
        self.renewal: Renewal = Renewal(self.options)
        self.shape: ChannelShape = self._shape(layers, path)
        self.beats: Beats | None = beats_of(self.options, self.shape.heartbeat)
        self.declared: frozenset[Any] = _declared(self.shape, self.plan)
        """The classes of the channel's messages. Its connections cannot join typed topics of other classes."""
        self.connection_name: str = _connection_name(self.plan)
        """The parameter, or `CONNECTION`, that holds the connection among the solved values."""
        self.frames: Frames = Frames(self.options.wire)
        self.read: Callable[..., Any] = self.frames.read
        self.replies_to_haste: bool = bool(limits.replying)
        self.events: Events = Events(self.shape.sends, self.options.wire)
        maker.events = self.events
        self.tag_key: str = self.options.wire.tag
        self.ref_key: str = self.options.wire.ref
        self.table: dict[str, Action] = _table(self.shape)
        self.bytes_action: Action | None = _action(self.shape.bytes_handler)
        self.fallback: Action | None = _action(self.shape.fallback)
        self.fallback_codec: Codec | None = _codec_of_all(self.shape.fallback)
        """Of the message that the fallback takes whole."""
        most = self.options.max_message_size
        self.looked_at: int = SIZED if most is None else min(SIZED, most // 4)
        """Characters of a message that certainly has no more bytes than are allowed."""

    def validated(self, incoming: Incoming | None, data: str, found: dict[str, Any], value: Any) -> Any:
        """A message as its handler gets it. `value` is its decoded whole, or `NOT_DECODED`. Raises InvalidMessage."""
        if incoming is None:  # the fallback
            whole = decode_json(data) if value is NOT_DECODED else value
            assert self.fallback_codec is not None, "a fallback has one"
            return self.fallback_codec.validate_value(whole)
        if value is not NOT_DECODED:
            return self.frames.validated_slowly(incoming, value)
        try:
            return self.frames.validated(incoming, data, found)
        except ValidationError as exc:
            raise InvalidMessage(failures(exc)) from None

    def _shape(self, layers: Layers, path: str) -> ChannelShape:
        blueprint, wire = self.blueprint, self.options.wire
        declared = [
            (where, one) for where, made in layers.made for one in get_args(made) if one not in (Any, None, NoReturn)
        ]
        if blueprint.sends is not None:
            declared.append((blueprint.label, blueprint.sends))
        sends = sent_by(blueprint.label, tuple(declared), self.described, wire)
        of_kind = {kind: [one for one in self.described if one.kind is kind] for kind in HandlerKind}
        return ChannelShape(
            name=blueprint.name,
            path=path,
            description=(inspect.getdoc(self.call) or "") if self.call is not None else "",
            wire=wire,
            options=self.options,
            plan=layers.plan,
            handlers=tuple(of_kind[HandlerKind.MESSAGE]),
            bytes_handler=next(iter(of_kind[HandlerKind.BYTES]), None),
            fallback=next(iter(of_kind[HandlerKind.FALLBACK]), None),
            renewal=self.renewal.shape if renews(self.options, [step.call for step in layers.plan.steps]) else None,
            heartbeat=heartbeat_event(self.options, sends, blueprint.label),
            sends=sends,
        )


def _table(shape: ChannelShape) -> dict[str, Action]:
    """The action for a message, by tag."""
    nested = shape.wire.content is not None
    return {one.tag: Action(handler, one, nested=nested) for handler in shape.handlers for one in handler.messages}


def _action(shape: HandlerShape | None) -> Action | None:
    return None if shape is None else Action(shape, None, nested=False)


def _codec_of_all(fallback: HandlerShape | None) -> Codec | None:
    """Of the message that a fallback takes whole."""
    if fallback is None:
        return None
    return codec_of(fallback.plan.annotation, f"{fallback.label}: parameter {fallback.plan.message!r}")


def _declared(shape: ChannelShape, plan: Plan) -> frozenset[Any]:
    """The classes of all that a channel may send, those of its typed topics too."""
    own = (tags.bare(one.codec.annotation) for one in shape.sends)
    return frozenset([*own, *(one.kind for topics in topics_of(plan) for one in topics.messages.types)])


def _connection_name(plan: Plan) -> str:
    if plan.connection_only is not None:
        return plan.connection_only
    own = (one.name for one in plan.endpoint.injections if one.what is Injected.CONNECTION)
    return next(own, CONNECTION)
