"""The classes for users: `Channel`, as `@app.channel(path)` makes it, and `MessageRouter`, a group of its handlers.

Owns the registered handlers, and checks each at its registration. `program.py` makes the program of a path from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

from antiphon.dependencies.inspection import describe
from antiphon.exceptions import RegistrationError
from antiphon.gate.limits import check_rate
from antiphon.gate.rates import Rate

from .errors import MessageError
from .options import ChannelOptions, check_timeout
from .outgoing import Outgoing
from .program import Blueprint, check_handler
from .shape import HandlerKind, Registered

Handler = TypeVar("Handler", bound=Callable[..., Any])


class HandlerMethods:
    """The decorators that `Channel` and `MessageRouter` share."""

    def __init__(self) -> None:
        self._registered: list[Registered | _Group] = []
        self._owners: list[Callable[[Registered], None]] = []
        """The routers that include this one. They hear of later registrations."""

    def registered(self) -> Iterator[Registered]:
        """The handlers registered here and in the included groups, in order."""
        for one in self._registered:
            if isinstance(one, Registered):
                yield one
            else:
                yield from map(one.placed, one.router.registered())

    @property
    def size(self) -> int:
        """How many were registered: it only grows."""
        return sum(1 if isinstance(one, Registered) else 1 + one.router.size for one in self._registered)

    @overload
    def on(self, handler: Handler, /) -> Handler: ...

    @overload
    def on(
        self,
        tag: str | None = None,
        /,
        *,
        errors: Sequence[type[MessageError]] = (),
        concurrent: int | None = None,
        timeout: float | None = None,
        rate: Rate | None = None,
        deprecated: bool = False,
    ) -> Callable[[Handler], Handler]: ...

    def on(
        self,
        tag: Any = None,
        /,
        *,
        errors: Sequence[type[MessageError]] = (),
        concurrent: int | None = None,
        timeout: float | None = None,
        rate: Rate | None = None,
        deprecated: bool = False,
    ) -> Any:
        """Handle a message with the decorated function: `@chat.on`, `@chat.on("tag")`, `@chat.on(errors=[Muted])`.

        The parameter whose type FastAPI would read from a body is the message. A union handles several. Its tag is the
        one given here, else that of its `Literal` field, else its class's name in snake case. The return value is the
        answer, and an async generator is a stream. `errors` are the `MessageError` classes it raises. With
        `concurrent=4` up to four requests of a connection are worked on at a time, each in a task, and they have no
        order. `timeout` in seconds bounds each. `rate` bounds how often it is called: with WAIT all messages behind it
        wait too, with REPLY the client gets error `rate_limited`, with CLOSE Close 1008. The function itself stays
        unchanged. Raises RegistrationError for a handler that can never work. It has no message and no tag, its tag is
        taken or reserved, a field has the name of the tag or the ref, or nothing can fill a parameter.
        """
        if tag is not None and not isinstance(tag, str):
            self._add(Registered(call=tag))
            return tag
        if isinstance(errors, str) or not isinstance(errors, Iterable):
            raise RegistrationError(f"errors= takes a list of subclasses of MessageError, not {errors!r}")
        said = Registered(
            call=_nothing,
            tag=tag,
            errors=tuple(errors),
            concurrent=concurrent,
            timeout=timeout,
            rate=rate,
            deprecated=deprecated,
        )

        def register(handler: Handler) -> Handler:
            self._add(replace(said, call=handler))
            return handler

        return register

    def include(self, router: MessageRouter, *, prefix: str = "", dependencies: Sequence[Any] | None = None) -> None:
        """Handle the messages of `router` too, their tags below `prefix`, behind `dependencies`, and later ones too.

        Raises RegistrationError as `on`, TypeError for an object that is no MessageRouter.
        """
        if not isinstance(router, MessageRouter):
            raise TypeError(f"include takes a MessageRouter, got {router!r}")
        if router is self or router.includes(self):
            raise RegistrationError("a MessageRouter cannot include itself")
        group = _Group(router, prefix, tuple(dependencies or ()))
        for one in router.registered():
            self._check(group.placed(one))
        self._registered.append(group)
        router._owners.append(lambda one: self._check(group.placed(one)))

    def includes(self, other: HandlerMethods) -> bool:
        """Whether `other` is included here, at any depth."""
        groups = [one.router for one in self._registered if not isinstance(one, Registered)]
        return any(router is other or router.includes(other) for router in groups)

    def _add(self, one: Registered) -> None:
        _check_said(one)
        self._check(one)
        self._registered.append(one)

    def _check(self, one: Registered) -> None:
        """Raise for a handler that can never work here or in an including router."""
        for owner in self._owners:
            owner(one)


class MessageRouter(HandlerMethods):
    """A group of handlers, to be included in channels: `chat.include(editing)`.

        editing = MessageRouter("doc.")

        @editing.on
        async def say(message: Say) -> None: ...  # "doc.say"

        chat.include(editing)

    `prefix` stands before the tags of its messages ("doc."), `dependencies` run before those of each handler, for each
    message.
    """

    def __init__(self, prefix: str = "", *, dependencies: Sequence[Any] | None = None) -> None:
        super().__init__()
        self.prefix: str = prefix
        self.dependencies: tuple[Any, ...] = tuple(dependencies or ())


class _Group:
    """A router as it is included."""

    def __init__(self, router: MessageRouter, prefix: str, dependencies: tuple[Any, ...]) -> None:
        self.router = router
        self.prefix = prefix
        self.dependencies = dependencies

    def placed(self, one: Registered) -> Registered:
        """The router's handler, with the prefix and dependencies of this inclusion."""
        return replace(
            one,
            prefix=self.prefix + self.router.prefix + one.prefix,
            dependencies=(*self.dependencies, *self.router.dependencies, *one.dependencies),
        )


class Channel(HandlerMethods):
    """Typed messages over one WebSocket path, as `@app.channel(path)` makes it of its connection function.

        @app.channel("/rooms/{room}")
        async def chat(websocket: WebSocket, room: str) -> AsyncIterator[None]:
            yield                                          # here the messages are handled

        @chat.on
        async def say(message: Say, caller: Caller[Said]) -> int: ...

    The connection function is an async generator, like a dependency with `yield`. The code before the `yield` runs
    when a client connects, the code behind it when the connection is over. Handlers that annotate the class of the
    yielded object get it. A plain function runs at the start, and `app.add_channel(path)` has none. The connection is
    accepted at the `yield` if it has not been before. `blueprint` holds the arguments of the decorator.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__()
        self.blueprint: Blueprint = blueprint
        self._taken: dict[str, str] = {}
        self._sent: tuple[Outgoing, ...] = ()

    @property
    def call(self) -> Callable[..., Any] | None:
        """The connection function."""
        return self.blueprint.call

    @property
    def name(self) -> str:
        """The connection function's name, or the one given."""
        return self.blueprint.name

    @property
    def path(self) -> str:
        """The path it was registered with."""
        return self.blueprint.path

    @property
    def options(self) -> ChannelOptions | None:
        """Its own options. None where the router's or the app's hold."""
        return self.blueprint.options

    def on_bytes(self, handler: Handler, /) -> Handler:
        """Handle binary messages with the decorated function, which has a parameter `data: bytes`.

        Raises RegistrationError for a second one, and as `on`.
        """
        self._add(Registered(call=handler, kind=HandlerKind.BYTES))
        return handler

    def fallback(self, handler: Handler, /) -> Handler:
        """Handle messages of a type that nobody takes, as they came: a parameter `message: dict[str, Any]`.

        Raises RegistrationError for a second one, and as `on`.
        """
        self._add(Registered(call=handler, kind=HandlerKind.FALLBACK))
        return handler

    def _check(self, one: Registered) -> None:
        shape, sent = check_handler(self.blueprint, one, self._sent)
        keys = [incoming.tag for incoming in shape.messages] or [f" {one.kind.value}"]
        for key in keys:
            if key in self._taken:
                what = f"messages of the tag {key!r}" if shape.messages else f"its {one.kind.value} handler"
                raise RegistrationError(f"{shape.label}: {what} are handled by {self._taken[key]} already")
        self._taken.update(dict.fromkeys(keys, shape.label))
        self._sent = sent


def _check_said(one: Registered) -> None:
    if not callable(one.call):
        raise RegistrationError(f"@on takes a function, or a tag as a str, not {one.call!r}")
    if isinstance(one.call, type):
        name = one.call.__name__
        text = f"not the class {name}: the function's parameter names it, `message: {name}`"
        raise RegistrationError(f"@on takes a function, or a tag as a str, {text}")
    label = describe(one.call)
    if one.concurrent is not None and (type(one.concurrent) is not int or one.concurrent < 1):
        raise RegistrationError(f"{label}: concurrent is a number of 1 or more, not {one.concurrent!r}")
    try:
        check_timeout(one.timeout)
    except ValueError as exc:
        raise RegistrationError(f"{label}: {exc}") from None
    if one.rate is not None:
        if not isinstance(one.rate, Rate):
            raise RegistrationError(f'{label}: rate is a Rate("5/second"), not {one.rate!r}')
        check_rate(one.rate, label)


def _nothing() -> None:
    """Stands in until the decorator gets its function."""
