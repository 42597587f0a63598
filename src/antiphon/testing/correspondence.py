"""A client's side of a channel's wire: requests with their refs, answers found again, events kept until somebody asks.

Pure: no connection, no waiting. `channel.py` is for one loop, `antiphon.testclient` for threads.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel

from antiphon import tags
from antiphon.clients.waiting import RemoteError
from antiphon.messages import Wire
from antiphon.messages.outgoing import outgoing_of
from antiphon.messages.typecodec import codec_of, inner_json
from antiphon.tagged import TAG, MessageSet

from .expectation import MOST_SHOWN, Expectation, show

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")


class Dataclass(Protocol):
    """Any of them, as type checkers know them."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Message: TypeAlias = BaseModel | Dataclass | Mapping[str, Any]
"""A client's message: a model, a dataclass, a TypedDict, or a dict that its class would refuse."""

OUR_WIRE: Final = Wire()
ANSWERS: Final = frozenset({"reply", "item", "end", "error"})


class Correspondence:
    """The requests of one client, and the messages that came."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._refs = itertools.count(1)
        self._answers: dict[int, deque[dict[str, Any]]] = {}
        self._events: deque[dict[str, Any]] = deque()
        self._errors: deque[RemoteError] = deque()
        self._came: deque[str | bytes] = deque(maxlen=MOST_SHOWN)
        self._count = 0
        self.binary: deque[bytes] = deque()
        """Binary messages that came."""

    # Outgoing

    def event(self, message: Any, tag: str | None) -> str:
        """A message without a ref."""
        return self._written(message, tag, None)

    def question(self, message: Any, tag: str | None) -> tuple[int, str]:
        """A message with a ref of its own, by which `answer` finds its answers."""
        ref = next(self._refs)
        self._answers[ref] = deque()
        return ref, self._written(message, tag, ref)

    def cancel(self, ref: int) -> str:
        """The end of a request, as far as its client goes."""
        return json.dumps({self.wire.tag: "cancel", self.wire.ref: ref})

    def _written(self, message: Any, tag: str | None, ref: int | None) -> str:
        wire = self.wire
        fields: Any = {}
        if message is not None:
            kind = type(message)
            fields = json.loads(codec_of(kind, kind.__name__).encode(message)) if kind is not dict else message
            if tag is None and kind is dict:
                tag = fields.get(wire.tag)
            elif tag is None:
                own = tags.literal_tags(kind, wire.tag, tags.Direction.OUT) if tags.is_message_class(kind) else None
                tag = fields[wire.tag] if own else tags.class_tag(kind)
        if tag is None:
            raise TypeError("a message without a class needs its tag: send(tag='typing')")
        head = {wire.tag: tag} if ref is None else {wire.tag: tag, wire.ref: ref}
        if wire.content is not None:
            return json.dumps({**head, wire.content: fields} if message is not None else head)
        return json.dumps({**fields, **head})

    # Incoming

    def take(self, message: str | bytes) -> None:
        """Sort an incoming message by its kind."""
        self._came.append(message)
        self._count += 1
        if isinstance(message, bytes):
            self.binary.append(message)
            return
        frame: dict[str, Any] = json.loads(message)
        tag, ref = frame.get(self.wire.tag), frame.get(self.wire.ref)
        if tag in ANSWERS and ref in self._answers:
            self._answers[ref].append(frame)
        elif tag == "error":
            self._errors.append(self._error(frame))
        elif tag not in ANSWERS:  # else an answer that nobody waits for any more
            self._events.append(frame)

    def answer(self, ref: int) -> dict[str, Any] | None:
        """The next frame with this ref, taken. None when there is none yet. Raises `RemoteError`."""
        if not self._answers[ref]:
            return None
        frame = self._answers[ref].popleft()
        if frame[self.wire.tag] == "error":
            raise self._error(frame)
        return frame

    def forget(self, ref: int) -> None:
        """Nobody waits for its answers any more."""
        self._answers.pop(ref, None)

    def found(self, kind: TypeForm[T]) -> tuple[T] | None:
        """The first event that is of the kind, taken. None when there is none. Others stay."""
        wanted = self._wanted(kind)
        for frame in self._events:
            if (codec := wanted.get(frame.get(self.wire.tag, ""))) is not None:
                self._events.remove(frame)
                content = frame if self.wire.content is None else frame.get(self.wire.content, {})
                return (codec.validate(inner_json(content)),)
        return self._published(kind)

    def _published(self, kind: TypeForm[T]) -> tuple[T] | None:
        """The same among the messages of typed topics with `Framing.EVENT`: the hub's event, with the message as its
        data."""
        messages: MessageSet[T] | None = None
        for frame in self._events:
            data = frame.get("data")
            if frame.get(TAG) == "message" and "topic" in frame and isinstance(data, dict):
                messages = messages or MessageSet(kind, "receive_as")
                if data.get(TAG) in messages.tags:
                    self._events.remove(frame)
                    return (messages.decode(json.dumps(data).encode()),)
        return None

    def event_for(self, expectation: Expectation) -> dict[str, Any] | None:
        """The first event that is wanted, taken. None when there is none. Others stay."""
        for frame in self._events:
            if expectation.wants(frame):
                self._events.remove(frame)
                return frame
        return None

    def _wanted(self, kind: Any) -> dict[str, Any]:
        return {tag: one.codec for one in outgoing_of(kind, self.wire, "receive_as") for tag in one.tags}

    def error(self) -> RemoteError | None:
        """The first error that belongs to no request. None when there is none."""
        return self._errors.popleft() if self._errors else None

    def data(self, frame: dict[str, Any], kind: Any, *, streamed: bool = False) -> Any:
        """The data of a reply, or of an item where one is `streamed`, as a value of the kind. None expects no data."""
        name = self.wire.content or "data"
        if frame[self.wire.tag] in ("item", "end") and not streamed:
            raise AssertionError("expected one answer, and a stream began: read it with stream()")
        if kind is None or kind is type(None):
            if frame.get(name) is not None:
                raise AssertionError(f"expected no data, got {frame[name]!r}: pass its type: request(message, int)")
            return None
        if name not in frame:
            raise AssertionError(f"expected {kind!r}, got an answer without data")
        return codec_of(kind, "the answer").validate(inner_json(frame[name]))

    def _error(self, frame: dict[str, Any]) -> RemoteError:
        said = frame if self.wire.content is None else frame[self.wire.content]
        return RemoteError(said["code"], said["message"], said.get("detail"))

    def what_came(self) -> str:
        """For the error of a wait that was too long."""
        return show([json.loads(one) if isinstance(one, str) else one for one in self._came], self._count)
