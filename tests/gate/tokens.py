"""Keys of every kind, tokens signed with them, and the watch that no token comes into a log."""

from __future__ import annotations

import base64
import functools
import json
import logging
import secrets
import time
from collections.abc import Generator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

SECRET = secrets.token_urlsafe(64)

CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
    "ES521": ec.SECP521R1(),
    "ES256K": ec.SECP256K1(),
}
ALGORITHMS = sorted(set(jwt.algorithms.get_default_algorithms()) - {"none"})
"""All that the installed PyJWT has."""

made: list[str] = []
"""Tokens of the test that runs: none of them may be logged."""


def kept(token: str) -> str:
    made.append(token)
    return token


def private_key(algorithm: str, name: str = "") -> Any:
    """A key that signs with this algorithm; another one for another name."""
    return _made(algorithm, name)


@functools.cache
def _made(algorithm: str, name: str) -> Any:
    if algorithm.startswith("HS"):
        return SECRET + name
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed448.Ed448PrivateKey.generate() if name == "448" else ed25519.Ed25519PrivateKey.generate()
    return _rsa(name)


@functools.cache
def _rsa(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def pem(key: Any) -> str:
    """The public part, as an issuer gives it away."""
    if isinstance(key, str):
        return key
    public = key.public_key()
    encoded: bytes = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded.decode()


def jwk(algorithm: str, kid: str | None, name: str = "", **more: Any) -> dict[str, Any]:
    """The public part of a key as a JWKS has it."""
    key = private_key(algorithm, name)
    known = jwt.algorithms.get_default_algorithms()[algorithm]
    public: dict[str, Any] = known.to_jwk(key if isinstance(key, str) else key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    return {**public, **({} if kid is None else {"kid": kid}), **more}


def claims(**more: Any) -> dict[str, Any]:
    """The claims of a good token. None leaves a claim out."""
    now = int(time.time())
    found = {"sub": "ada", "iat": now, "exp": now + 600, **more}
    return {name: value for name, value in found.items() if value is not None}


def signed(algorithm: str = "HS256", name: str = "", headers: dict[str, Any] | None = None, **more: Any) -> str:
    return kept(jwt.encode(claims(**more), private_key(algorithm, name), algorithm, headers))


def part(value: Any) -> str:
    """A part of a token, written by hand."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class Watch(logging.Handler):
    """Keeps the text of all that is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@pytest.fixture(autouse=True)
def no_token_in_logs() -> Generator[Watch]:
    """Fails the test whose log has a token it made, or a part of one that is long enough to be one."""
    watch = Watch()
    root, ours = logging.getLogger(), logging.getLogger("antiphon")
    before = ours.level
    ours.setLevel(logging.DEBUG)
    root.addHandler(watch)
    made.clear()
    try:
        yield watch
    finally:
        root.removeHandler(watch)
        ours.setLevel(before)
    log = "\n".join(watch.texts)
    for token in made:
        for piece in [token, *token.split(".")]:
            assert len(piece) < 16 or piece not in log, f"{piece[:12]}… is in the log"
