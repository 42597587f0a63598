"""The Lua scripts, and calling them: by hash, loaded again where the server does not know them (any more)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from ...errors import BackendUnavailable
from .wire import Command, Word

Client: TypeAlias = "Redis"


class NotSent(ConnectionError):
    """The command certainly was not done: it never left."""


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


class Script:
    """One script: the common prelude and its own part."""

    def __init__(self, name: str) -> None:
        self.source: Final = f"{_read('common.lua')}\n{_read(f'{name}.lua')}"
        self.sha: Final = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def command(self, key: str, *words: Word) -> Command:
        """The command that runs it on the bucket whose state key this is."""
        return ("EVALSHA", self.sha, 1, key, *words)


PUBLISH: Final = Script("publish")
HEADS: Final = Script("heads")
HISTORY: Final = Script("history")
PRESENCE: Final = Script("presence")
COUNT: Final = Script("count")
GATE: Final = Script("gate")
SCRIPTS: Final = (PUBLISH, HEADS, HISTORY, PRESENCE, COUNT, GATE)


LOADS: Final[tuple[Command, ...]] = tuple(("SCRIPT", "LOAD", script.source) for script in SCRIPTS)


async def load(client: Client, commands: Iterable[Command] = ()) -> list[Any]:
    """Make the server know all scripts, and the replies to these commands, all in one go. Raises RedisError."""
    replies = await _pipeline(client, [*LOADS, *commands])
    for reply in replies[: len(LOADS)]:
        if isinstance(reply, RedisError):
            raise reply
    return replies[len(LOADS) :]


async def read(client: Client, command: Command) -> Any:
    """The reply to a command that changes nothing: asked again, once, on another connection. Raises RedisError."""
    try:
        return await _call(client, command)
    except (ConnectionError, OSError) as error:
        if isinstance(error, (AuthenticationError, BusyLoadingError)):
            raise
        # A server, a proxy or a NAT may have closed a connection that was idle for too long.
        return await _call(client, command)


async def _call(client: Client, command: Command) -> Any:
    try:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]
    except NoScriptError:
        await load(client)
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


async def call_all(client: Client, commands: Iterable[Command]) -> list[Any]:
    """The replies, in order, of commands sent in one go. One that failed is its RedisError. Raises RedisError."""
    todo = list(commands)
    replies = await _pipeline(client, todo)
    unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        await load(client)
        again = await _pipeline(client, [todo[index] for index in unknown])
        for index, reply in zip(unknown, again, strict=True):
            replies[index] = reply
    return replies


async def _pipeline(client: Client, commands: list[Command]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies


def of_no_use(error: BaseException) -> bool:
    """The server says that it is not, or not yet, the one to ask: a replica, one that loads its data, a stranger."""
    if isinstance(error, (ReadOnlyError, MasterDownError, BusyLoadingError)):
        return True
    # Not a wrong password on a new connection: those that stand go on working.
    return isinstance(error, AuthenticationError) and "Authentication required" in str(error)


def refused(error: BaseException) -> bool:
    """The server is the right one, and takes no writes: its memory or disk is full, its replicas are away."""
    return isinstance(error, OutOfMemoryError) or (
        isinstance(error, ResponseError) and str(error).startswith(("MISCONF", "NOREPLICAS"))
    )


def unavailable(error: RedisError) -> BackendUnavailable:
    """The error for the hub. Once the command may have left, it is uncertain whether it was executed."""
    refused = isinstance(error.__context__, ConnectionRefusedError)
    broken = isinstance(error, (ConnectionError, TimeoutError))
    certain = refused or isinstance(error, (NotSent, BusyLoadingError, AuthenticationError))
    return BackendUnavailable(f"redis: {error}", uncertain=broken and not certain)
