"""What `JWT` costs beside PyJWT, in one run: CPU microseconds per token, best of several runs, and what ours adds.

    python benchmarks/jwt_micro.py

`PyJWT` is `jwt.decode` with the same key and the same expectations. `JWT.verify` is all of ours: the header read for
the key, its size and characters, PyJWT, and the `Identity`. `as a dependency` is the scheme called with a WebSocket:
scope, source and `admit`, too. The last column is what the way to a thread and back costs. `--check` fails where ours
adds more than 10 µs.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from antiphon import WebSocket
from antiphon.gate import JWT

RUNS = 15
MOST_ADDED = 10.0
SECRET = "s" * 64
KEYS: dict[str, Callable[[], Any]] = {
    "HS256": lambda: SECRET,
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
}


async def nothing(*_: Any) -> Any: ...


async def best_of(*calls: Callable[[], Awaitable[Any]], times: int = 40) -> list[float]:
    """Microseconds of each, the runs of all by turns, so that what slows the machine down slows all of them."""
    best = [float("inf")] * len(calls)
    for _ in range(RUNS):
        for place, call in enumerate(calls):
            begin = time.process_time()
            for _ in range(times):
                await call()
            best[place] = min(best[place], (time.process_time() - begin) / times * 1e6)
    return best


async def measured(algorithm: str) -> tuple[float, float, float, float]:
    key = KEYS[algorithm]()
    public = key if isinstance(key, str) else key.public_key()
    claims = {"sub": "ada", "exp": int(time.time()) + 3600, "iat": int(time.time()), "aud": "chat", "scope": "a b"}
    token = pyjwt.encode(claims, key, algorithm, {"kid": "k"})
    scheme = JWT(keys={"k": public}, algorithms=[algorithm], audience="chat")
    verify = scheme.verify
    assert verify is not None

    async def theirs() -> Any:
        return pyjwt.decode(
            token, public, algorithms=[algorithm], audience=["chat"], leeway=10, options={"require": ["exp", "sub"]}
        )

    async def connection() -> Any:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": headers, "subprotocols": []}
        return WebSocket(scope, nothing, nothing)

    async def dependency() -> Any:
        return await scheme(await connection())

    alone, ours, bare, whole = await best_of(theirs, lambda: verify(token), connection, dependency)
    return alone, ours, whole - bare, ours - alone


async def main() -> int:
    (thread,) = await best_of(lambda: asyncio.to_thread(int))
    print(f"{'µs':8}{'PyJWT':>9}{'JWT.verify':>12}{'as a dependency':>17}{'added':>8}{'ratio':>8}{'a thread':>10}")
    failed = False
    for algorithm in KEYS:
        alone, ours, whole, added = await measured(algorithm)
        failed |= added > MOST_ADDED
        print(f"{algorithm:8}{alone:9.1f}{ours:12.1f}{whole:17.1f}{added:8.1f}{ours / alone:8.2f}{thread:10.1f}")
    return int(failed and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
