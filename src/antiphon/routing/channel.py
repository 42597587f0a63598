"""The route of a channel: a path, and the channel as it is there. Running it is `messages`' and `endpoint.py`'s.

A route below a prefix, or in another app, is another `ChannelRoute` of the same `Channel`. Each settles its program
when it is first asked for, and again when the channel has got more handlers.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Unpack

from starlette.routing import Match

from antiphon.connection.denials import Denials
from antiphon.dependencies.params import Depends
from antiphon.dependencies.plan import Plan
from antiphon.exceptions import RegistrationError
from antiphon.gate.limits import Limits
from antiphon.gate.terms import NO_TERMS, Lets, Terms
from antiphon.messages import Channel, ChannelOptions
from antiphon.messages.connecting import Runnable
from antiphon.messages.program import Blueprint, check_blueprint
from antiphon.messages.shape import ChannelShape
from antiphon.tags import snake_case
from antiphon.types import ANSWER_KEY, DECLARED_EXTENSION, WRITE_KEY, Receive, Scope, Send

from . import endpoint as runner
from .context import NOTHING, Overrides, OverridesProvider, overrides_of
from .errors import warn_of_missing_path_parameters
from .route import APIWebSocketRoute

if TYPE_CHECKING:
    from typing_extensions import TypeForm

MOST_VARIANTS: Final = 16
"""Programs with overrides applied: those change from test to test."""


class ChannelTold(Lets, total=False):
    """A channel's arguments besides its path, function and name."""

    dependencies: Sequence[Any] | None
    """Run once per connection."""
    sends: TypeForm[Any] | None
    """A union of the message classes that it sends besides those that its `Caller`s name."""
    options: ChannelOptions | None
    """Its wire and limits."""
    subprotocol: str | None
    """Only clients that offer it are served, and it is agreed on."""


def blueprint_of(
    path: str,
    function: Callable[..., Any] | None,
    name: str | None,
    *,
    dependencies: Sequence[Any] | None = None,
    sends: Any = None,
    options: ChannelOptions | None = None,
    subprotocol: str | None = None,
    **lets: Unpack[Lets],
) -> tuple[Blueprint, Lets]:
    """The arguments of a channel, checked, and those of its route. Raises RegistrationError."""
    if options is not None and not isinstance(options, ChannelOptions):
        raise RegistrationError(f"a channel's options are ChannelOptions(...), not {options!r}")
    own = (
        getattr(function, "__name__", None) or snake_case(re.sub(r"\W+", "_", re.sub(r"{.*?}", "", path))) or "channel"
    )
    blueprint = Blueprint(
        call=function,
        name=name or own,
        path=path,
        dependencies=tuple(dependencies or ()),
        options=options,
        sends=sends,
        subprotocol=subprotocol,
    )
    check_blueprint(blueprint)
    return blueprint, lets


def serving(channel: Channel) -> Callable[..., Any]:
    """The stand-in for the connection function of a channel that has none, where routes name their endpoint."""

    async def serve() -> None: ...

    serve.__name__ = serve.__qualname__ = channel.name
    serve.__module__ = "antiphon.channel"
    return serve


class _NoOverrides:
    """They are in the program already."""

    dependency_overrides: Any = NOTHING


_NO_OVERRIDES: Final = _NoOverrides()


class ChannelRoute(APIWebSocketRoute):
    """A path and a channel. `options` are those of the app or router around, for a channel that has none. `terms` are
    its rules of admission and its rates."""

    def __init__(
        self,
        path: str,
        channel: Channel,
        *,
        name: str | None = None,
        dependencies: Sequence[Depends] | None = None,
        dependency_overrides_provider: OverridesProvider | None = None,
        options: ChannelOptions | None = None,
        terms: Terms = NO_TERMS,
        **lets: Unpack[Lets],
    ) -> None:
        self.channel: Channel = channel
        self.options: ChannelOptions | None = options
        self._making = threading.Lock()
        """Connections ask in the loop's thread, and documents in another."""
        self._programs: dict[Hashable, Runnable] = {}
        self._size = 0
        """Of the channel, when the programs were made."""
        super().__init__(
            path,
            channel.call if channel.call is not None else serving(channel),
            name=channel.name if name is None else name,
            dependencies=dependencies,
            dependency_overrides_provider=dependency_overrides_provider,
            terms=terms,
            **lets,
        )

    def check(self, endpoint: Callable[..., Any]) -> None:
        """The connection function was looked at with the channel."""

    def analyzed(self) -> Plan:
        """The connection's plan, with the handlers' parameters of the handshake."""
        return self.program().plan

    @property
    def shape(self) -> ChannelShape:
        """The channel at this path, with the handlers that it has now."""
        return self.program().shape

    def program(self, overrides: Overrides = NOTHING, limits: Limits | None = None) -> Runnable:
        """The program to run, within these limits (else the route's).

        Raises RegistrationError for handlers that cannot work at this path.
        """
        limits = self.terms.limits if limits is None else limits
        key = (limits, *((id(original), id(replacement)) for original, replacement in overrides.items()))
        made = self._programs.get(key) if self.channel.size == self._size else None
        return made or self._made_once(key, overrides, limits)

    def _made_once(self, key: Hashable, overrides: Overrides, limits: Limits) -> Runnable:
        with self._making:
            if self.channel.size != self._size:
                self._programs.clear()
                self._size = self.channel.size
            made = self._programs.get(key)
            if made is None:
                if len(self._programs) >= MOST_VARIANTS:
                    self._programs.clear()
                made = self._programs[key] = self._made(dict(overrides), limits)
        return made

    def _made(self, overrides: Mapping[Any, Any], limits: Limits) -> Runnable:
        made = Runnable(
            self.channel.blueprint,
            tuple(self.channel.registered()),
            path=self.path_format,
            dependencies=self.dependencies,
            options=self.options,
            overrides=overrides,
            limits=limits,
        )
        if self.dependency_overrides_provider is not None and not overrides:  # it is an app's: no prefix comes
            warn_of_missing_path_parameters(made.plan, [one.call for one in made.described])
        return made

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As the base. A channel with a subprotocol serves only clients that offer it."""
        wanted = self.channel.blueprint.subprotocol
        if wanted is not None and wanted not in (scope.get("subprotocols") or ()):
            return Match.NONE, {}
        return super().matches(scope)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Run the channel. The coroutine is its runner's own, no frame lies between."""
        settled = self.program()
        terms = self.terms.here(scope)
        if not terms.door.lets_in(scope, settled.options.denials or Denials.CLOSE):
            return runner.refuse_origin(scope, receive, send)
        program = self.program(overrides_of(scope, self.dependency_overrides_provider), terms.limits)
        scope[DECLARED_EXTENSION] = settled.declared
        scope[WRITE_KEY] = settled.events.frame
        if (subprotocol := self.channel.blueprint.subprotocol) is not None:
            scope[ANSWER_KEY] = subprotocol
        return runner.run(program, program.plan, scope, receive, send, _NO_OVERRIDES, terms.limits.unanswered)

    def _copy(self, path: str, options: ChannelOptions | None, **around: Any) -> ChannelRoute:
        return type(self)(path, self.channel, name=self.name, options=self.options or options, **around)
