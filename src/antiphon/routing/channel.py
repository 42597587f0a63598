"""The route of a channel: a path, and what the channel comes to there. Running it is `messages`' and `endpoint.py`'s.

A route below a prefix, or in another app, is another `ChannelRoute` of the same `Channel`; each settles its program
when it is first asked for, and again when the channel has got more handlers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Unpack

from starlette.routing import Match

from antiphon.connection.denials import Denials
from antiphon.dependencies.params import Depends
from antiphon.dependencies.plan import Plan
from antiphon.exceptions import RegistrationError
from antiphon.gate.door import OPEN, Door
from antiphon.gate.limits import NO_LIMITS, Limits
from antiphon.messages import Blueprint, Channel, ChannelOptions, ChannelShape
from antiphon.messages.connecting import Runnable
from antiphon.messages.program import check_blueprint
from antiphon.tags import snake_case
from antiphon.types import ANSWER_KEY, DECLARED_EXTENSION, Receive, Scope, Send

from . import endpoint as runner
from .context import NOTHING, Overrides, OverridesProvider, overrides_of
from .route import APIWebSocketRoute, Lets

MOST_VARIANTS: Final = 16
"""Programs with overrides applied: those change from test to test."""


def blueprint_of(
    path: str,
    function: Callable[..., Any] | None,
    name: str | None,
    *,
    dependencies: Sequence[Any],
    sends: Any,
    options: ChannelOptions | None,
    subprotocol: str | None,
) -> Blueprint:
    """What was written of a channel, checked. Raises RegistrationError."""
    if options is not None and not isinstance(options, ChannelOptions):
        raise RegistrationError(f"a channel's options are ChannelOptions(...), not {options!r}")
    own = (
        getattr(function, "__name__", None) or snake_case(re.sub(r"\W+", "_", re.sub(r"{.*?}", "", path))) or "channel"
    )
    blueprint = Blueprint(
        call=function,
        name=name or own,
        path=path,
        dependencies=tuple(dependencies),
        options=options,
        sends=sends,
        subprotocol=subprotocol,
    )
    check_blueprint(blueprint)
    return blueprint


def serving(channel: Channel) -> Callable[..., Any]:
    """What stands for the connection function of a channel that has none, where routes name their endpoint."""

    async def serve() -> None: ...

    serve.__name__ = serve.__qualname__ = channel.name
    serve.__module__ = "antiphon.channel"
    return serve


class _NoOverrides:
    """They are in the program already."""

    dependency_overrides: Any = NOTHING


_NO_OVERRIDES: Final = _NoOverrides()


class ChannelRoute(APIWebSocketRoute):
    """A path and a channel. `options` are those of the app or router around, for a channel that has none, `limits` how
    much it lets in."""

    def __init__(
        self,
        path: str,
        channel: Channel,
        *,
        name: str | None = None,
        dependencies: Sequence[Depends] | None = None,
        dependency_overrides_provider: OverridesProvider | None = None,
        options: ChannelOptions | None = None,
        limits: Limits = NO_LIMITS,
        **lets: Unpack[Lets],
    ) -> None:
        self.channel: Channel = channel
        self.options: ChannelOptions | None = options
        self._programs: dict[Any, Runnable] = {}
        self._size = 0
        """Of the channel, when the programs were made."""
        super().__init__(
            path,
            channel.call if channel.call is not None else serving(channel),
            name=channel.name if name is None else name,
            dependencies=dependencies,
            dependency_overrides_provider=dependency_overrides_provider,
            limits=limits,
            **lets,
        )

    def check(self, endpoint: Callable[..., Any]) -> None:
        """The connection function was looked at with the channel."""

    def analyzed(self) -> Plan:
        """The connection's plan, with what handlers take from the handshake."""
        return self.program().plan

    @property
    def shape(self) -> ChannelShape:
        """What the channel is at this path, with the handlers that it has now."""
        return self.program().shape

    def program(self, overrides: Overrides = NOTHING) -> Runnable:
        """What to run. Raises RegistrationError for handlers that cannot work at this path."""
        if self.channel.size != self._size:
            self._programs.clear()
            self._size = self.channel.size
        key = tuple((id(original), id(replacement)) for original, replacement in overrides.items())
        if key not in self._programs:
            if len(self._programs) >= MOST_VARIANTS:
                self._programs.clear()
            self._programs[key] = self._made(dict(overrides))
        return self._programs[key]

    def _made(self, overrides: Mapping[Any, Any]) -> Runnable:
        return Runnable(
            self.channel.blueprint,
            tuple(self.channel.registered()),
            path=self.path_format,
            dependencies=self.dependencies,
            options=self.options,
            overrides=overrides,
            limits=self.limits,
        )

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As the base; a channel with a subprotocol serves only who offers it."""
        wanted = self.channel.blueprint.subprotocol
        if wanted is not None and wanted not in (scope.get("subprotocols") or ()):
            return Match.NONE, {}
        return super().matches(scope)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Run the channel; the coroutine is its runner's own, no frame lies between."""
        settled = self.program()
        if not self.door.lets_in(scope, settled.options.denials or Denials.CLOSE):
            return runner.refuse_origin(scope, receive, send)
        program = self.program(overrides_of(scope, self.dependency_overrides_provider))
        scope[DECLARED_EXTENSION] = settled.declared
        if (subprotocol := self.channel.blueprint.subprotocol) is not None:
            scope[ANSWER_KEY] = subprotocol
        return runner.run(program, program.plan, scope, receive, send, _NO_OVERRIDES, self.limits)

    def included(
        self,
        prefix: str,
        dependencies: Sequence[Depends],
        provider: OverridesProvider | None,
        limits: Limits = NO_LIMITS,
        door: Door = OPEN,
        options: ChannelOptions | None = None,
    ) -> ChannelRoute:
        """As the base. `options` are those of what includes it, for a channel that has none."""
        route = type(self)(
            prefix + self.path,
            self.channel,
            name=self.name,
            dependencies=[*dependencies, *self.dependencies],
            dependency_overrides_provider=self.dependency_overrides_provider or provider,
            options=self.options or options,
            limits=limits + self.limits,
        )
        route.own_path = self.own_path
        route.door = self.door.within(door)
        return route
