"""The errors of the hub. Each names the expectation and the fact. None carries a password."""

from __future__ import annotations

from antiphon.exceptions import PeerError, TryAgainLater


class HubError(Exception):
    """Base of everything the hub raises on its own account.

    For example:

        try:
            await hub.publish("news", "hello")
        except HubError as error:
            print(error)
    """


class InvalidTopic(HubError, ValueError):
    """A topic name that is empty, too long, or holds characters a name must not hold.

    `topic` is the given name, `fault` is its fault.

        try:
            await hub.publish("", "hello")
        except InvalidTopic as error:
            print(error.topic, error.fault)
    """

    def __init__(self, topic: object, fault: str) -> None:
        super().__init__(f"not a topic name: {_shown(topic)}: {fault}")
        self.topic = topic
        self.fault = fault


class InvalidTopicName(PeerError, InvalidTopic):
    """An invalid str, which usually comes from a peer: uncaught in an endpoint it closes with 1008."""

    close_code = 1008
    close_reason = "not a topic"


class InvalidPosition(PeerError, HubError, ValueError):
    """An invalid position, as text or in its parts. A peer sends it, so uncaught in an endpoint it closes with 1008."""

    close_code = 1008
    close_reason = "not a position"


class UnencodableData(HubError, TypeError):
    """Data (or presence info) that has no form on the wire. Raised before anything is sent.

    For example:

        try:
            await hub.publish("news", {"number": print})
        except UnencodableData as error:
            print(error)
    """


class UnencodableCharacters(PeerError, UnencodableData):
    """The same for lone surrogates, which come out of a peer's JSON: uncaught in an endpoint it closes with 1007."""

    close_code = 1007
    close_reason = "text is not Unicode"


class UndeclaredTopic(HubError, RuntimeError):
    """A channel's connection was to join a typed topic with messages that the channel does not declare: the document
    would not tell clients of them. Take the topic as a parameter of the connection function, or name its messages in
    `sends=`."""


class UnknownBackend(HubError, ValueError):
    """A hub URL whose scheme names no backend, or one that the backend cannot read.

    For example:

        try:
            Hub("reddis://localhost")
        except UnknownBackend as error:
            print(error)
    """


class UnsupportedBackend(HubError, RuntimeError):
    """A third party's backend lacks the methods that tickets, quotas and revocations need (`GateBackend`)."""


class Revoked(HubError):
    """An identity that `hub.revoke` has taken back: 401 at the door, 3000 once the connection is accepted.

    For example:

        from antiphon.hub import Revoked

        try:
            await hub.admit(websocket, Identity(user="ann", issued_at=0))
        except Revoked as error:
            print(error)
    """


class HubNotRunning(HubError, RuntimeError):
    """A hub whose backend has a connection was used after `stop()`."""


class AlreadyJoined(HubError, RuntimeError):
    """A connection joined a topic in which it is already: it would get every message twice.

    Raised on entering the second membership. The first one stays.

        async with hub.join("news", websocket):
            try:
                async with hub.join("news", websocket):
                    print("never reached")
            except AlreadyJoined:
                print("the first membership stays")
    """


class BackendUnavailable(HubError, TryAgainLater, ConnectionError):
    """The backend cannot be reached now. Uncaught in an endpoint it closes with 1013, so that clients come back.

    `message` is for a log. `uncertain` is True when the request had left before the connection broke: it may or may not
    have been done.

        try:
            await hub.publish("news", "hello")
        except BackendUnavailable as away:
            print(away.uncertain)  # True: it may have been published
    """

    def __init__(self, message: str, *, uncertain: bool = False) -> None:
        super().__init__(message)
        self.uncertain = uncertain


class SlowSubscriber(HubError):
    """A `hub.subscribe` loop did not keep up and the topic's policy is `Overflow.DISCONNECT`.

    For example:

        try:
            async with hub.subscribe("news") as messages:
                async for message in messages:
                    await asyncio.sleep(10)
        except SlowSubscriber:
            print("subscribe again, with the last position")
    """


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
