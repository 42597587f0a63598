"""The cost of `JWT` beside PyJWT, in one run: CPU microseconds per token, and the difference.

    python benchmarks/jwt_micro.py [--check]

`PyJWT` is `jwt.decode` with the same key and the same expectations. `JWT.verify` is all of ours: the header read for
the key, its size and characters, PyJWT, and the `Identity`. `JWKS` is RS256 with a fetched key. `as a dependency` is
the scheme called with a WebSocket: scope, source and `admit`, too. `--check`: see limits.py.

The result depends on the method. CPython keeps frames in chunks of 16 KiB, and a loop that calls across the end
of one takes and returns a chunk in each turn. PyJWT looks at every character of a token in such a loop. So its time
jumps by half with the depth of the stack it is called from, and differs between two callers. Here all calls are made in
turns from each of `DEPTHS` depths. A call's time at one depth is the least there, which other work on the machine does
not change, and the printed one is the median over the quarter of the depths that cost the least. At up to a half of
them there is that jump, and at the rest often a smaller one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from statistics import median
from typing import Any, Final

import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from antiphon import WebSocket
from antiphon.gate import JWKS, JWT
from limits import verdict

DEPTHS: Final = 64
"""Frames of ours fill more than one chunk with these."""
TURNS: Final = 40
MOST_ADDED: Final = 10.0
"""Microseconds (the limit of `--check`)."""
VARIES: Final = 0.02
"""The part of PyJWT's own time by which two runs of it differ: the limit for a curve that is slower than all else."""
SECRET: Final = "s" * 64
KEYS: Final[dict[str, Callable[[], Any]]] = {
    "HS256": lambda: SECRET,
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "JWKS": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
}

Call = Callable[[], Coroutine[Any, Any, Any]]


async def nothing(*_: Any) -> Any: ...


def finished(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


def at_depth(depth: int, run: Callable[[], None]) -> None:
    if depth:
        at_depth(depth - 1, run)
    else:
        run()


def microseconds(calls: Mapping[str, Call]) -> dict[str, float]:
    """Of each call, as the docstring above says."""
    names = list(calls)
    least: dict[str, list[int]] = {name: [] for name in calls}

    def turns() -> None:
        here = dict.fromkeys(calls, sys.maxsize)
        for turn in range(TURNS):
            for name in names if turn % 2 else reversed(names):
                call = calls[name]
                began = time.thread_time_ns()
                finished(call())
                here[name] = min(here[name], time.thread_time_ns() - began)
        for name, time_of in here.items():
            least[name].append(time_of)

    gc.collect()
    gc.disable()
    for depth in range(DEPTHS):
        at_depth(depth, turns)
    gc.enable()
    return {name: median(sorted(times)[: DEPTHS // 4]) / 1000 for name, times in least.items()}


async def measured(name: str) -> dict[str, float]:
    algorithm = "RS256" if name == "JWKS" else name
    key = KEYS[name]()
    public: Any = key if isinstance(key, str) else key.public_key()
    claims = {"sub": "ada", "exp": int(time.time()) + 3600, "iat": int(time.time()), "aud": "chat", "scope": "a b"}
    token = pyjwt.encode(claims, key, algorithm, {"kid": "k"})
    keys: Any = {"k": public}
    if name == "JWKS":
        jwk = json.loads(pyjwt.algorithms.RSAAlgorithm.to_jwk(public))

        async def fetch(url: str) -> Any:
            return {"keys": [{**jwk, "kid": "k", "alg": algorithm, "use": "sig"}]}

        keys = JWKS("https://issuer.example/keys", fetch=fetch)
    scheme = JWT(keys=keys, algorithms=[algorithm], audience="chat")
    verify = scheme.verify
    assert verify is not None
    await verify(token)  # a key is fetched here

    async def theirs() -> Any:
        return pyjwt.decode(
            token, public, algorithms=[algorithm], audience=["chat"], leeway=10, options={"require": ["exp", "sub"]}
        )

    async def ours() -> Any:
        return await verify(token)

    async def connection() -> Any:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": headers, "subprotocols": []}
        return WebSocket(scope, nothing, nothing)

    async def dependency() -> Any:
        return await scheme(await connection())

    # The pairs each alone: other code between two calls would take their caches.
    verified = microseconds({"PyJWT": theirs, "ours": ours})
    return verified | microseconds({"connection": connection, "dependency": dependency})


async def main() -> int:
    print(f"{'µs':8}{'PyJWT':>9}{'JWT.verify':>12}{'added':>8}{'as a dependency':>17}")
    figures: dict[str, tuple[float, float]] = {}
    for name in KEYS:
        found = await measured(name)
        added = found["ours"] - found["PyJWT"]
        figures[f"{name}: added, µs"] = (added, max(MOST_ADDED, VARIES * found["PyJWT"]))
        whole = found["dependency"] - found["connection"]
        print(f"{name:8}{found['PyJWT']:9.1f}{found['ours']:12.1f}{added:8.1f}{whole:17.1f}")
    return verdict(figures)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
