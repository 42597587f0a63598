"""Reading the arguments of the hub's callers: the exact types the parts below rely on, or a typed error. Pure."""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeGuard

from antiphon.exceptions import RegistrationWarning
from antiphon.identity import IDENTITY_KEY, MILLISECONDS, Identity
from antiphon.status import check_close_code, cut_reason
from antiphon.tagged import MessageSet, name_of
from antiphon.types import DECLARED_EXTENSION, Sink, SupportsSink

from .errors import AlreadyJoined, InvalidPosition, UndeclaredTopic, UnencodableCharacters
from .records import MAX_EPOCH, MAX_OFFSET_DIGITS, Position
from .topics import MAX_SECONDS, TopicOptions, check_number


def read_count(name: str, value: Any) -> int:
    """A number of messages. Raises TypeError, ValueError."""
    given: Any = None if isinstance(value, bool) else value  # True is an int, and here a mistake
    try:
        count = operator.index(given)
    except TypeError:
        raise TypeError(f"{name}: expected a number of messages, got {type(value).__name__}") from None
    if count < 0:
        raise ValueError(f"{name}: expected a number of messages, 0 or more; got {value!r}")
    return count


def read_position(since: object) -> Position | None:
    """A position, of any backend.

    Raises TypeError for another type. Raises `InvalidPosition` for invalid parts: in `Position(**message)` they come
    from a peer.
    """
    if since is None:
        return None
    if not isinstance(since, tuple) or len(since) != 2:
        raise TypeError(f"since: expected a Position (Position.parse reads a str), got {type(since).__name__}")
    offset, epoch = since
    try:
        offset = operator.index(offset)
    except TypeError:
        raise InvalidPosition(f"since: expected a whole number as offset, got {type(offset).__name__}") from None
    if not 0 <= offset < 10**MAX_OFFSET_DIGITS:
        raise InvalidPosition(f"since: expected an offset of 0 or more, {MAX_OFFSET_DIGITS} digits at most")
    if not isinstance(epoch, str):
        raise InvalidPosition(f"since: expected a str as epoch, got {type(epoch).__name__}")
    if not epoch.isprintable() or len(epoch) > MAX_EPOCH:
        raise InvalidPosition(f"since: expected an epoch as events carry it, got {epoch[:80]!a}")
    return Position(offset, str.__str__(epoch))


def warn_of_missing_f(topic: str, websocket: object) -> None:
    """Warn of a topic with a `{room}` of the path in it: it would be one for all rooms. Called by `Hub.join`."""
    if "{" not in topic:
        return
    parameters = getattr(websocket, "scope", {}).get("path_params", {})
    for name, value in parameters.items():
        placeholder = f"{{{name}}}"
        if placeholder in topic and placeholder not in str(value):
            text = f"{topic!r} is one topic for every {name}: the f in front is missing, f{topic!r}"
            warnings.warn(text, RegistrationWarning, stacklevel=3)


logger: Final = logging.getLogger("antiphon.hub")


class Warnings:
    """The warnings given to the users of one hub: each once, however many topics there are."""

    def __init__(self, has_options: bool = True) -> None:
        self._warned: set[str] = set()
        self._has_options = has_options

    def of_what_is_not_kept(
        self, topic: str, options: TopicOptions, since: object, history: int, presence: object = None
    ) -> None:
        """Tell of features that a joiner asks for and a topic with these options does not have.

        Missing history is a warning. A presence may be there for `hub.presence` alone: a log line.
        """
        if options.keep is None and (since is not None or history):
            self.of_history_not_kept(topic, "history=" if history else "since=", stacklevel=4)
        if presence is not None and options.presence is None and "presence=" not in self._warned:
            self._warned.add("presence=")
            logger.warning(
                "presence= for topic %r, whose sockets are not told of each other: TopicOptions(presence=True) tells "
                "them, and presence=False says that hub.presence() is all that is wanted",
                topic,
            )

    def of_history_not_kept(self, topic: str, what: str, stacklevel: int = 3) -> None:
        """Warn the caller that asks, by the argument or call `what`, for the history of a topic that keeps none."""
        if what not in self._warned:
            text = f"{what} for topic {topic!r}, which keeps none: give it TopicOptions(history=100) in Hub(topics=)"
            if not self._has_options:
                text += ". This hub has options for no topic; where another one was meant, App(hub=hub) takes it"
            warnings.warn(text, RegistrationWarning, stacklevel=stacklevel)
            self._warned.add(what)

    def of_members_elsewhere(self, topic: str, others: Iterable[Container[str]]) -> None:
        """Tell of a message to a hub that nobody ever joined, where another one has the topic's connections."""
        if "publish" not in self._warned and any(topic in other for other in others):
            self._warned.add("publish")
            logger.warning(
                "a message for topic %r reaches nobody: no connection ever joined this hub, and another hub of this "
                "process has connections in the topic. App(hub=hub) makes one of them the app's own",
                topic,
            )


class OnlyAsyncWith:
    """Tells how to use a membership that is awaited, entered without `async`, or dropped."""

    __slots__ = ()

    topic: str
    _entered: bool

    if not TYPE_CHECKING:  # a type checker has words of its own for these

        def __await__(self) -> NoReturn:
            self._entered = True  # or so it was meant
            raise TypeError(f"a membership is entered, not awaited: async with hub.join({self.topic!r}, websocket)")

        def __enter__(self) -> NoReturn:
            self._entered = True
            raise TypeError(f"a membership is entered with async: async with hub.join({self.topic!r}, websocket): ...")

        def __exit__(self, *_: object) -> None: ...

    def __del__(self) -> None:
        if not getattr(self, "_entered", True):
            text = f"a membership of topic {self.topic!r} was never entered, and joined nothing: use `async with`"
            warnings.warn(text, RegistrationWarning, stacklevel=2)


def refuse_second(topic: str, sink: Sink, sinks: set[int]) -> None:
    """Note the sink among those of a topic. Raises `AlreadyJoined` for one that is there."""
    if id(sink) in sinks:
        raise AlreadyJoined(
            f"this connection is in topic {topic!r} already, and would get each message twice: join once, or leave() "
            "the first membership before the second"
        )
    sinks.add(id(sink))


def read_sink(websocket: SupportsSink) -> Sink:
    """The receiver. Raises TypeError."""
    sink = getattr(websocket, "sink", None)
    if sink is None:
        kind = f"{type(websocket).__module__}.{type(websocket).__qualname__}"
        text = f"expected an antiphon WebSocket (anything with a `sink`), got {kind}"
        if isinstance(getattr(websocket, "scope", None), Mapping):  # another framework's
            text += ": accept and join `antiphon.WebSocket(websocket.scope, websocket.receive, websocket.send)` instead"
        raise TypeError(text)
    found: Sink = sink
    return found


def check_declared(topic: str, messages: MessageSet[Any] | None, websocket: object) -> None:
    """Raises `UndeclaredTopic` for a typed topic whose messages the websocket's channel does not declare."""
    scope = getattr(websocket, "scope", None)
    declared = scope.get(DECLARED_EXTENSION) if messages is not None and isinstance(scope, Mapping) else None
    if messages is None or declared is None:
        return
    missing = [name_of(one.kind) for one in messages.types if one.kind not in declared]
    if missing:
        raise UndeclaredTopic(
            f"topic {topic!r} carries {' | '.join(missing)}, which its channel does not declare: take the topic as a "
            "parameter of the connection function, or name them in sends="
        )


def read_close(code: object, reason: object) -> tuple[int, str]:
    """A code that may go on the wire, and the reason cut to the room beside it (RFC 6455 §5.5).

    Raises TypeError, ValueError.
    """
    if not isinstance(reason, str):
        raise TypeError(f"reason: expected a str, got {type(reason).__name__}")
    return check_close_code(code), cut_reason(reason)


def read_user(user: object) -> str | None:
    """A user's name as text. None and "" are nobody. Raises `UnencodableData`."""
    if user is None:
        return None
    name = str.__str__(user) if isinstance(user, str) else str(user)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnencodableCharacters(f"user: expected UTF-8, got {ascii(name)[:80]}") from None
    return name or None


def need_user(user: object) -> str:
    """The same where a name is required. Raises ValueError."""
    name = read_user(user)
    if name is None:
        raise ValueError("user: expected a name; an empty one is nobody's")
    return name


def read_revocation(
    user: str | None, session: object, issued_before: object, lifetime: object
) -> tuple[str | None, float | None, float]:
    """The session, the time and the lifetime of a revocation. Raises TypeError, ValueError."""
    if session is not None and not isinstance(session, str):
        raise TypeError(f"session: expected a str, got {type(session).__name__}")
    if session == "":
        raise ValueError("session: expected its name; got an empty one")
    if user is None and session is None and issued_before is None:
        raise ValueError("expected a user, a session, or issued_before for everybody; got none of them")
    if issued_before is not None:
        issued_before = check_number("issued_before", issued_before, float)
        if issued_before >= MILLISECONDS:
            raise ValueError(f"issued_before: expected Unix seconds, and {issued_before!r} are milliseconds")
    seconds = check_number("lifetime", lifetime, float)
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"lifetime: expected seconds, more than 0 and at most ten years; got {lifetime!r}")
    return read_user(session), issued_before, seconds


def has_sink(websocket: object) -> TypeGuard[SupportsSink]:
    """Whether it is a connection that the hub can send to, and close."""
    return getattr(websocket, "sink", None) is not None


def user_in(presence: object) -> str | None:
    """The user that the presence of a connection names. Raises `UnencodableData`."""
    if isinstance(presence, str):
        return read_user(presence)
    if isinstance(presence, Mapping):
        return read_user(presence.get("user", presence.get("id")))
    return None


def user_of(websocket: object) -> str | None:
    """The authenticated user of an ASGI connection: its identity's, else the name that Starlette's user has."""
    scope = getattr(websocket, "scope", None)
    if isinstance(scope, Mapping) and isinstance(identity := scope.get(IDENTITY_KEY), Identity):
        return read_user(identity.user)
    user = scope.get("user") if isinstance(scope, Mapping) else None
    if user is None or isinstance(user, str):
        return read_user(user)
    for name in ("identity", "username", "display_name"):
        try:
            who = getattr(user, name, None)
        except NotImplementedError:
            continue
        if who:
            return read_user(who)
    return None
