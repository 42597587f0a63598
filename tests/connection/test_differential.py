"""Random programs on our raw WebSocket and on Starlette's: the same results, errors and states.

Where antiphon promises something else on purpose, `_differs` says so and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect as StarletteWebSocketDisconnect
from starlette.websockets import WebSocketState

from antiphon.connection import WebSocket
from antiphon.types import Message
from tests.search import some


@dataclass
class Step:
    """One call of the program, with the server's reaction."""

    call: str
    message: dict[str, Any]
    server_fails: bool = False


@dataclass
class Run:
    """One of the two WebSockets, and its events."""

    websocket: Any
    sent: list[Message] = field(default_factory=list)

    @property
    def states(self) -> tuple[WebSocketState, WebSocketState]:
        return self.websocket.client_state, self.websocket.application_state


Outcome: TypeAlias = "Message | Exception | None"

reasons = st.none() | st.text(max_size=20)
payloads = st.fixed_dictionaries({}, optional={"text": st.none() | st.text(), "bytes": st.none() | st.binary()})
incoming = st.one_of(
    st.just({"type": "websocket.connect"}),
    payloads.map(lambda payload: {"type": "websocket.receive", **payload}),
    st.builds(
        lambda code, reason: {"type": "websocket.disconnect", "code": code, "reason": reason},
        st.sampled_from([1000, 1001, 1005, 1006, 4000]),
        reasons,
    ),
    st.sampled_from(["websocket.send", "http.request", "nonsense"]).map(lambda kind: {"type": kind}),
)
outgoing = st.one_of(
    st.just({"type": "websocket.accept"}),
    payloads.map(lambda payload: {"type": "websocket.send", **payload}),
    st.builds(
        lambda code, reason: {"type": "websocket.close", "code": code, "reason": reason},
        st.sampled_from([1000, 1001, 3000]),
        reasons,
    ),
    st.just({"type": "websocket.http.response.start", "status": 403, "headers": []}),
    st.booleans().map(lambda more: {"type": "websocket.http.response.body", "body": b"x", "more_body": more}),
    st.sampled_from(["websocket.connect", "http.response.start", "nonsense"]).map(lambda kind: {"type": kind}),
)
steps = st.builds(Step, st.just("receive"), incoming) | st.builds(
    Step, st.just("send"), outgoing, st.sampled_from([False, False, False, True])
)
openings = st.sampled_from(
    [
        [],
        [Step("receive", {"type": "websocket.connect"})],
        [Step("receive", {"type": "websocket.connect"}), Step("send", {"type": "websocket.accept"})],
    ]
)


@given(openings, st.lists(steps, max_size=12))
@settings(max_examples=some(100))
async def test_raw_receive_and_send_do_what_starlettes_do(opening: list[Step], program: list[Step]) -> None:
    ours, theirs = Run(None), Run(None)
    current: Step

    for run, cls in ((ours, WebSocket), (theirs, StarletteWebSocket)):

        async def receive() -> Message:
            return dict(current.message)

        async def send(message: Message, run: Run = run) -> None:
            if current.server_fails:
                raise OSError
            run.sent.append(message)

        run.websocket = cls({"type": "websocket", "path": "/", "headers": []}, receive, send)

    for current in [*opening, *program]:
        before = theirs.states
        our_outcome, their_outcome = await _do(ours.websocket, current), await _do(theirs.websocket, current)
        if _differs(current, before, our_outcome):
            return
        _same(our_outcome, their_outcome)
        assert [_canonical(message) for message in ours.sent] == [_canonical(message) for message in theirs.sent]
        assert ours.states == theirs.states


async def _do(websocket: Any, step: Step) -> Outcome:
    try:
        if step.call == "receive":
            received: Message = await websocket.receive()
            return received
        await websocket.send(dict(step.message))
    except Exception as exc:
        return exc
    return None


def _same(ours: Outcome, theirs: Outcome) -> None:
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
        if isinstance(theirs, StarletteWebSocketDisconnect):
            assert isinstance(ours, StarletteWebSocketDisconnect)
            assert (ours.code, ours.reason) == (theirs.code, theirs.reason)
        elif str(theirs).startswith("Expected"):
            assert str(ours) == str(theirs)
    else:
        assert not isinstance(ours, Exception), ours
        assert (ours and _canonical(ours)) == (theirs and _canonical(theirs))


def _canonical(message: Message) -> Message:
    """Without the keys that say nothing: None where a default stands, and the empty half of a received message."""
    message = {key: value for key, value in message.items() if value is not None}
    if message["type"] == "websocket.close":
        message.setdefault("reason", "")
    if message["type"] == "websocket.receive" and "text" in message:
        message.pop("bytes", None)
    return message


def _differs(step: Step, before: tuple[WebSocketState, WebSocketState], ours: Outcome) -> bool:
    """Whether antiphon promises something else here. The program ends with the check of that promise."""
    client, application = before
    kind = step.message["type"]
    if step.call == "receive":
        # A disconnect in place of the connect message: the same error, but ours knows from now on that it is over.
        return client is WebSocketState.CONNECTING and kind == "websocket.disconnect" and isinstance(ours, RuntimeError)
    if client is WebSocketState.DISCONNECTED:
        if (application, kind) == (WebSocketState.CONNECTED, "websocket.send"):
            # A send after the disconnect message is refused here; Starlette leaves it to the server.
            assert isinstance(ours, StarletteWebSocketDisconnect)
            return True
        if (application, kind) == (WebSocketState.CONNECTING, "websocket.accept"):
            assert isinstance(ours, StarletteWebSocketDisconnect)
            return True
        if application is not WebSocketState.DISCONNECTED and kind == "websocket.close" and step.server_fails:
            if application is WebSocketState.RESPONSE:
                return False
            assert ours is None  # closing after the peer is no error, the first time
            return True
    if step.server_fails and application in (WebSocketState.CONNECTING, WebSocketState.RESPONSE):
        legal = not isinstance(ours, RuntimeError) or isinstance(ours, StarletteWebSocketDisconnect)
        if legal:
            # A server's OSError is a disconnect in every state, not only while CONNECTED.
            assert isinstance(ours, StarletteWebSocketDisconnect)
            # Known from the disconnect message, if that has come before.
            assert ours.code == 1006 or client is WebSocketState.DISCONNECTED
        return legal
    return False
