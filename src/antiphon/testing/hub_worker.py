"""A process with a hub, commanded by JSON lines: `python -m antiphon.testing.hub_worker` for the contract suite.

The first line is the hub's URL and options. Every later line is one command with an `id`; its reply carries the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from antiphon.hub import BackendUnavailable, Hub, HubError, Membership, OnOutage, Position, TopicOptions
from antiphon.identity import Identity

from .hub_sinks import PATIENCE, Connection

LONGEST_LINE: Final = 1 << 26


class Worker:
    """The test's end: one process and its commands."""

    spawn: ClassVar[Callable[..., Awaitable[Any]]] = staticmethod(asyncio.create_subprocess_exec)
    """Starts the process: asyncio's function, or one with the same signature."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._serial = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, url: str, topics: dict[str, dict[str, Any]], **options: Any) -> Self:
        """Start a process with a running hub. `topics`: keywords of `TopicOptions` by pattern."""
        process = await cls.spawn(
            *(sys.executable, "-m", __name__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        worker = cls(process)
        await worker.ask("start", url=url, topics=topics, options=options)
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, command: str, *, timeout: float = PATIENCE, **arguments: Any) -> Any:
        """The command's result. Raises RuntimeError with the exception of the worker's hub, or when it is gone."""
        assert self._process.stdin is not None
        self._serial += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._serial] = future
        self._process.stdin.write(json.dumps({"id": self._serial, "do": command, **arguments}).encode() + b"\n")
        return await asyncio.wait_for(future, timeout)

    async def received(self, name: str) -> list[str]:
        """The messages that the connection of this name has received so far."""
        result: list[str] = await self.ask("received", name=name)
        return result

    def send_signal(self, which: signal.Signals) -> None:
        os.kill(self.pid, which)

    async def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        await self._end()

    async def stop(self) -> None:
        """Let it stop its hub and exit."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(signal.SIGCONT)
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), PATIENCE)
        except TimeoutError:
            self._process.kill()
            raise
        finally:
            await self._end()

    async def _end(self) -> None:
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            reply = json.loads(line)
            future = self._waiting.pop(reply["id"])
            if future.done():
                continue
            if "error" in reply:
                future.set_exception(RuntimeError(reply["error"]))
            else:
                future.set_result(reply["result"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RuntimeError("the worker is gone"))


@contextlib.asynccontextmanager
async def workers(
    count: int, url: str, topics: dict[str, dict[str, Any]], **options: Any
) -> AsyncGenerator[list[Worker]]:
    """So many processes, started and stopped with the block. Those killed in it stay dead."""
    started = await asyncio.gather(*(Worker.start(url, topics, **options) for _ in range(count)))
    try:
        yield started
    finally:
        await asyncio.gather(*(worker.stop() for worker in started))


@dataclass(slots=True)
class _Process:
    """The worker's own end."""

    hub: Hub
    connections: dict[str, Connection] = field(default_factory=dict)
    memberships: dict[str, Membership] = field(default_factory=dict)

    async def join(
        self, topic: str, name: str, since: str | None = None, history: int = 0, presence: object = None
    ) -> dict[str, Any]:
        connection = self.connections.setdefault(name, Connection())
        position = None if since is None else Position.parse(since)
        membership = self.hub.join(topic, connection, since=position, history=history, presence=presence)
        self.memberships[f"{topic}/{name}"] = await membership.__aenter__()
        return {"position": str(membership.position or ""), "recovered": membership.recovered}

    async def leave(self, topic: str, name: str) -> None:
        await self.memberships.pop(f"{topic}/{name}").leave()

    async def die(self, name: str) -> None:
        self.connections[name].sink.die()

    async def received(self, name: str) -> list[str]:
        return [one if isinstance(one, str) else one.decode() for one in self.connections[name].received]

    async def closed(self, name: str) -> int | None:
        return self.connections[name].sink.close_code

    async def publish(self, topic: str, data: list[Any], but: str | None = None) -> list[str]:
        exclude = None if but is None else self.connections[but]
        return [str(await self.hub.publish(topic, one, exclude=exclude) or "") for one in data]

    async def presence(self, topic: str) -> dict[str, list[Any]]:
        return await self.hub.presence(topic)

    async def close(self, user: str | None = None, topic: str | None = None, code: int = 1008) -> None:
        await self.hub.close_connections(user=user, topic=topic, code=code)

    async def admit(self, name: str, user: str) -> None:
        connection = self.connections.setdefault(name, Connection())
        await self.hub.admit(connection, Identity(user=user))

    async def send(self, user: str, data: Any) -> None:
        await self.hub.send(data, user=user)

    async def revoke(self, user: str) -> None:
        await self.hub.revoke(user=user)

    async def take(self, keys: list[str]) -> list[str | None]:
        taken = await asyncio.gather(*(self.hub.door.take("a test", key) for key in keys))
        return [None if one is None else one.decode() for one in taken]

    async def claim(
        self, key: str, limit: int, evict: bool = False, alone: bool = False, name: str | None = None
    ) -> dict[str, Any]:
        connection = Connection() if name is None else self.connections.setdefault(name, Connection())
        try:
            claimed = await self.hub.door.claim(key, limit, connection.sink, evict=evict, alone=alone)
        except BackendUnavailable as error:
            return {"error": repr(error)}
        return claimed._asdict()

    async def told(self) -> bool:
        """Whether the backend knows of every share that was claimed here or has ended."""
        return not self.hub.door._shares._untold

    async def connected(self) -> bool:
        return self.hub.stats().connected


async def _main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = json.loads(await reader.readline())
    topics = {pattern: TopicOptions(**options) for pattern, options in first["topics"].items()}
    options = first["options"]
    if "on_outage" in options:
        options["on_outage"] = OnOutage(options["on_outage"])
    hub = Hub(first["url"], topics=topics, **options)
    process = _Process(hub)
    try:
        await hub.start()
    except HubError as error:
        _reply(first["id"], error=error)
        return
    _reply(first["id"], result=None)
    running: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(_run(process, json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)
    await hub.stop()


async def _run(process: _Process, command: dict[str, Any]) -> None:
    serial, name = command.pop("id"), command.pop("do")
    try:
        _reply(serial, result=await getattr(process, name)(**command))
    except Exception as error:
        _reply(serial, error=error)


def _reply(serial: int, *, result: object = None, error: Exception | None = None) -> None:
    reply = {"id": serial, "result": result} if error is None else {"id": serial, "error": repr(error)}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
