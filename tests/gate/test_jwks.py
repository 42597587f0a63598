"""Keys that an issuer publishes, from a real HTTP server: rotated, away, slow and hostile."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import json
import re
import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from antiphon.exceptions import HTTPException
from antiphon.gate import JWKS, JWT, Identity
from tests.patience import PATIENCE, until

from .issuer import Issuer, document, issuer, response
from .tokens import Watch, jwk, no_token_in_logs, private_key, signed

__all__ = ["Watch", "no_token_in_logs"]


@pytest.fixture
async def keys() -> AsyncGenerator[Issuer]:
    async with issuer() as made:
        yield made


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def token(kid: str | None = "a", name: str | None = None) -> str:
    return signed("ES256", (name if name is not None else kid) or "", {} if kid is None else {"kid": kid})


async def identity(scheme: JWT, text: str) -> Identity:
    assert scheme.verify is not None
    return await scheme.verify(text)


async def status(scheme: JWT, text: str) -> int:
    try:
        await identity(scheme, text)
    except HTTPException as error:
        return error.status_code
    return 200


async def test_the_keys_are_fetched_once_however_many_tokens_come(keys: Issuer) -> None:
    scheme = keys.jwt()
    assert await asyncio.gather(*(status(scheme, token()) for _ in range(50))) == [200] * 50
    assert len(keys.requests) == 1
    head = keys.requests[0].decode()
    assert head.startswith(f"GET /keys?tenant=1 HTTP/1.1\r\nHost: localhost:{keys.port}\r\n")
    assert await status(scheme, token(None, "a")) == 200
    assert await status(scheme, token("a", "b")) == 401
    assert len(keys.requests) == 1


async def test_a_key_that_the_issuer_adds_is_found(keys: Issuer) -> None:
    clock = Clock()
    scheme = keys.jwt(clock=clock)
    assert await status(scheme, token("a")) == 200
    keys.answer = response(document("a", "b"))
    assert await status(scheme, token("b")) == 401  # just fetched: not again so soon
    clock.now += 10
    assert await asyncio.gather(*(status(scheme, token("b")) for _ in range(20))) == [200] * 20
    assert len(keys.requests) == 2


async def test_a_key_that_the_issuer_takes_back_is_forgotten_in_the_background(keys: Issuer) -> None:
    clock = Clock()
    scheme = keys.jwt(clock=clock)
    assert await status(scheme, token("a")) == 200
    keys.answer = response(document("b"))
    clock.now += 301
    assert await status(scheme, token("a")) == 200  # nobody waits for the new ones
    await until(lambda: len(keys.requests) == 2 and not keys.open)
    async with asyncio.timeout(PATIENCE):
        while await status(scheme, token("a")) == 200:  # noqa: ASYNC110  the answer is still being read
            await asyncio.sleep(0.01)
    assert await status(scheme, token("b")) == 200
    assert len(keys.requests) == 2


async def test_names_that_somebody_makes_up_cost_one_fetch_in_ten_seconds(keys: Issuer) -> None:
    clock = Clock()
    scheme = keys.jwt(clock=clock)
    for _ in range(5):
        assert set(await asyncio.gather(*(status(scheme, token(f"made up {n}", "b")) for n in range(40)))) == {401}
        clock.now += 2
    assert len(keys.requests) == 1
    assert await status(scheme, token("another", "b")) == 401
    assert len(keys.requests) == 2


async def test_while_the_issuer_is_away_its_keys_serve_and_then_no_longer(
    keys: Issuer, no_token_in_logs: Watch
) -> None:
    clock = Clock()
    scheme = keys.jwt(clock=clock, stale=3600)
    assert await status(scheme, token("a")) == 200
    keys.answer = b""
    clock.now += 3599
    assert await status(scheme, token("a")) == 200
    await until(lambda: any("Those from before serve for another 1 s" in text for text in no_token_in_logs.texts))
    assert await status(scheme, token("b")) == 503  # it may be good: nobody can know
    clock.now += 2
    assert await status(scheme, token("a")) == 503
    clock.now += 10
    keys.answer = response(document("a"))
    assert await status(scheme, token("a")) == 200
    assert any("are there again: 1" in text for text in no_token_in_logs.texts)


async def test_an_issuer_that_is_away_is_asked_again_after_the_cooldown(keys: Issuer, no_token_in_logs: Watch) -> None:
    clock = Clock()
    scheme = JWT(keys=JWKS(keys.url, clock=clock), algorithms=["ES256"])
    keys.answer = response(b"", "500 Internal Server Error")
    with pytest.raises(HTTPException) as caught:
        await identity(scheme, token())
    assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "10"})
    assert await asyncio.gather(*(status(scheme, token()) for _ in range(30))) == [503] * 30
    assert len(keys.requests) == 1
    warned = [text for text in no_token_in_logs.texts if "could not be fetched" in text]
    assert warned == [
        f"the keys of http://localhost:{keys.port}/keys could not be fetched: HTTP 500. Tokens are answered with 503; "
        "the next try is in 10 s at the earliest"
    ]
    clock.now += 10
    keys.answer = response(document("a"))
    assert await status(scheme, token()) == 200


# ---------------------------------------------------------------- answers of issuers


async def drip_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def drip_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def endless(writer: asyncio.StreamWriter, begin: bytes, what: bytes) -> None:
    writer.write(begin)
    while True:
        writer.write(what)
        await writer.drain()


BAD: dict[str, tuple[bytes | Callable[[asyncio.StreamWriter], Awaitable[None]], str]] = {
    "nothing": (b"", "cut off"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "Httpparser|HttpParser"),
    "cut": (response(document("a"))[:-9], "cut off"),
    "half a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "cut off"),
    "not found": (response(b"{}", "404 Not Found"), "HTTP 404"),
    "a redirect": (
        response(b"", "302 Found", ["Location: http://169.254.169.254/x"]),
        r"HTTP 302, a redirect to 'http://169.254.169.254/x', which is not followed",
    ),
    "compressed": (response(b"\x1f\x8b", headers=["Content-Encoding: gzip"]), "compressed"),
    "no JSON": (response(b"<html>"), "no JSON"),
    "not UTF-8": (response(b"\xff\xfe\xff"), "no JSON"),
    "a list": (response(b"[]"), "no JWKS"),
    "keys as text": (response(b'{"keys": "a"}'), "no JWKS"),
    "nested": (response(b"[" * 100_000), "no JSON"),
    "nested keys": (response(b'{"keys": ' + b"[" * 90_000 + b"]" * 90_000 + b"}"), "no JSON"),
    "no keys": (response(b'{"keys": []}'), "none of the 0 keys"),
    "keys of numbers": (response(b'{"keys": [1, null, "a", [], {}]}'), "none of the 5 keys"),
    "keys that are too short": (
        response(json.dumps({"keys": [{"kty": "RSA", "e": "AQAB", "n": "wQ" * 85, "kid": "a"}]}).encode()),
        "none of the 1 keys of the JWKS verifies signatures: an RSA key",
    ),
    "a secret": (response(json.dumps({"keys": [{"kty": "oct", "k": "YQ", "kid": "a"}]}).encode()), "none of the 1"),
    "10000 keys": (response(json.dumps({"keys": [{"kid": "a"}] * 10_000}).encode()), "has 10000 keys, and 100"),
    "a large body": (response(b" " * 300_000), "more than 262144 bytes"),
    "an endless body": (
        lambda writer: endless(writer, b"HTTP/1.1 200 OK\r\n\r\n", b" " * 50_000),
        "more than 262144 bytes",
    ),
    "endless chunks": (
        lambda writer: endless(writer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 9999),
        "more than 262144 bytes",
    ),
    "endless headers": (
        lambda writer: endless(writer, b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 9000 + b"\r\n"),
        "more than 262144 bytes|overflow",
    ),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "HTTP 101"),
    "endless hints": (
        lambda writer: endless(writer, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 999),
        "more than 262144 bytes",
    ),
    "silence": (silence, "no whole answer within 0.3 s"),
    "a dripping head": (drip_head, "no whole answer within 0.3 s"),
    "a dripping body": (drip_body, "no whole answer within 0.3 s"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_answer_is_one_line_and_503(name: str, keys: Issuer, no_token_in_logs: Watch) -> None:
    keys.answer, says = BAD[name]
    scheme = keys.jwt(timeout=0.3 if "within" in says else PATIENCE)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(tick())
    async with asyncio.timeout(PATIENCE):
        assert await status(scheme, token()) == 503
    beside.cancel()
    assert ticks > 1, "the loop stood still"
    (warning,) = [text for text in no_token_in_logs.texts if "could not be fetched" in text]
    assert re.search(says, warning), warning
    assert "\n" not in warning


GOOD: dict[str, bytes] = {
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"1\r\n%c\r\n" % byte for byte in document("a"))
    + b"0\r\n\r\n",
    "until the end": response(document("a"), length=False),
    "after hints": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Encoding: br\r\n\r\n"
    + response(document("a")),
    "by HTTP/1.0": response(document("a"), length=False).replace(b"1.1", b"1.0", 1),
    "beside others": response(
        json.dumps(
            {"keys": [{"kty": "future"}, jwk("RS256", "a", use="enc"), jwk("ES256", "a", "a"), jwk("EdDSA", "e")]}
        ).encode()
    ),
    "as its own": response(json.dumps({"keys": [jwk("ES256", "a", "a", alg="ES256", use="sig", x5c=["…"])]}).encode()),
}


@pytest.mark.parametrize("name", GOOD)
async def test_every_form_of_a_good_answer_is_read(name: str, keys: Issuer) -> None:
    keys.answer = GOOD[name]
    assert await status(keys.jwt(), token()) == 200


async def test_nobody_listens_and_no_name(no_token_in_logs: Watch) -> None:
    async with issuer() as gone:
        pass
    scheme = JWT(jwks_url=gone.url, algorithms=["ES256"])
    assert await status(scheme, token()) == 503
    assert await status(JWT(jwks_url="https://nobody.invalid/", algorithms=["ES256"]), token()) == 503
    assert sum("could not be fetched" in text for text in no_token_in_logs.texts) == 2


# ---------------------------------------------------------------- TLS


def certificate(folder: Path) -> ssl.SSLContext:
    key = private_key("ES256", "tls")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


async def test_a_certificate_has_to_be_one_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_token_in_logs: Watch
) -> None:
    async with issuer(certificate(tmp_path)) as keys:
        assert await status(keys.jwt(), token()) == 503
        assert any("CERTIFICATE_VERIFY_FAILED" in text for text in no_token_in_logs.texts)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "both.pem"))
        assert await status(keys.jwt(), token()) == 200


# ---------------------------------------------------------------- in whose time


async def test_who_waits_and_leaves_takes_nothing_from_the_others(keys: Issuer) -> None:
    release = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(response(document("a")))

    keys.answer = late
    scheme = keys.jwt(timeout=PATIENCE)
    first, second = (asyncio.create_task(status(scheme, token())) for _ in range(2))
    await until(lambda: keys.requests)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    release.set()
    assert await second == 200
    assert len(keys.requests) == 1


async def test_tokens_of_known_keys_wait_for_nobody(keys: Issuer) -> None:
    clock = Clock()
    scheme = keys.jwt(clock=clock, timeout=PATIENCE)
    assert await status(scheme, token("a")) == 200
    keys.answer = silence
    clock.now += 20
    stuck = asyncio.create_task(status(scheme, token("new", "b")))
    await until(lambda: len(keys.requests) == 2)
    assert await status(scheme, token("a")) == 200
    assert not stuck.done()
    stuck.cancel()
    await asyncio.wait([stuck])


async def test_one_scheme_serves_several_event_loops(keys: Issuer) -> None:
    scheme = keys.jwt()
    text = token()

    def elsewhere() -> int:
        return asyncio.run(status(scheme, text))

    assert await asyncio.gather(*(asyncio.to_thread(elsewhere) for _ in range(3)), status(scheme, text)) == [200] * 4
    assert await asyncio.to_thread(elsewhere) == 200


async def test_who_comes_before_the_fetch_of_another_thread_has_begun_is_not_turned_away(keys: Issuer) -> None:
    scheme = keys.jwt()
    text = token()
    statuses: list[int] = []

    def between() -> None:
        elsewhere = threading.Thread(target=lambda: statuses.append(asyncio.run(status(scheme, text))))
        elsewhere.start()
        elsewhere.join(PATIENCE)

    def first() -> int:
        async def ask() -> int:
            asyncio.get_running_loop().call_soon(between)  # after the task of the fetch is made, and before it runs
            return await status(scheme, text)

        return asyncio.run(ask())

    assert await asyncio.to_thread(first) == 200
    assert statuses == [200]


async def test_a_loop_that_was_closed_over_its_fetch_does_not_fetch(keys: Issuer) -> None:
    clock = Clock()
    scheme = keys.jwt(clock=clock)
    keys.answer = silence

    def abandoned() -> asyncio.Task[int]:
        loop = asyncio.new_event_loop()
        task = loop.create_task(status(scheme, token("a")))
        loop.call_soon(lambda: loop.call_soon(loop.stop))
        loop.run_forever()
        for one in asyncio.all_tasks(loop):
            setattr(one, "_log_destroy_pending", False)  # noqa: B010  no other test hears of it
        loop.close()
        return task

    left = await asyncio.to_thread(abandoned)
    assert not left.done()
    assert [await status(scheme, token("a")) for _ in range(3)] == [503] * 3
    assert not keys.requests
    clock.now += 10
    keys.answer = response(document("a"))
    assert await status(scheme, token("a")) == 200


async def test_who_comes_while_another_thread_takes_the_keys_is_not_turned_away() -> None:
    statuses: list[int] = []
    came = asked = False

    async def fetch(url: str) -> bytes:
        nonlocal came
        came = True
        return document("a")

    def clock() -> float:
        nonlocal asked
        if came and not asked:  # the keys are here, and nobody has them yet
            asked = True
            elsewhere = threading.Thread(target=lambda: statuses.append(asyncio.run(status(scheme, text))))
            elsewhere.start()
            elsewhere.join(PATIENCE)
        return 1000.0

    scheme = JWT(keys=JWKS("https://issuer.example/keys", fetch=fetch, clock=clock), algorithms=["ES256"])
    text = token()
    assert await status(scheme, text) == 200
    assert statuses == [200]


async def test_a_loop_that_ends_in_the_middle_of_a_fetch_leaves_nothing(keys: Issuer, no_token_in_logs: Watch) -> None:
    keys.answer = silence
    scheme = keys.jwt(timeout=PATIENCE)
    text = token()

    async def leave() -> None:
        waiting = asyncio.create_task(status(scheme, text))
        await until(lambda: keys.requests)
        waiting.cancel()
        await asyncio.wait([waiting])

    await asyncio.to_thread(lambda: asyncio.run(leave()))
    gc.collect()
    assert not any("destroyed" in text for text in no_token_in_logs.texts)


# ---------------------------------------------------------------- a fetch of one's own


@pytest.mark.parametrize("form", ["bytes", "text", "mapping"])
async def test_keys_may_be_fetched_by_a_function(form: str) -> None:
    asked = []

    async def fetch(url: str) -> Any:
        asked.append(url)
        body = document("a")
        return {"bytes": body, "text": body.decode(), "mapping": json.loads(body)}[form]

    scheme = JWT(keys=JWKS("http://intern/keys", fetch=fetch), algorithms=["ES256"])
    assert await status(scheme, token()) == 200
    assert asked == ["http://intern/keys"]


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (RuntimeError("proxy\nis away"), r"fetch\(\) raised RuntimeError: proxy\\nis away"),
        (TimeoutError("a second"), r"fetch\(\) raised TimeoutError: a second"),
        (b" " * 300_000, r"more than 262144 bytes"),
        (bytearray(300_000), r"more than 262144 bytes"),
        ("\u2003" * 100_000, r"more than 262144 bytes"),
        (None, "no JSON"),
        (5, "no JSON"),
        ({"keys": None}, "no JWKS"),
    ],
)
async def test_what_a_function_gives_wrongly_is_one_line(result: Any, says: str, no_token_in_logs: Watch) -> None:
    async def fetch(url: str) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    assert await status(JWT(keys=JWKS("https://a.test/", fetch=fetch), algorithms=["ES256"]), token()) == 503
    assert any(re.search(says, text) for text in no_token_in_logs.texts)
