"""Keys that verify signatures, each bound to the algorithms that its kind is for (RFC 8725 §3.1).

A token's algorithm only chooses among these: a public key is never taken for a secret.
Needs PyJWT and cryptography (the extra `jwt`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

SECRETS: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms of secrets, and the bytes that one has at least: those of the hash (RFC 7518 §3.2)."""

OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
OF_CURVES: Final = {
    "secp256r1": ("ES256",),
    "secp384r1": ("ES384",),
    "secp521r1": ("ES512", "ES521"),  # PyJWT's old name for it, too
    "secp256k1": ("ES256K",),
}
OF_EDWARDS: Final = ("EdDSA",)

PUBLIC: Final = frozenset(OF_RSA) | {name for names in OF_CURVES.values() for name in names} | {*OF_EDWARDS}
"""Algorithms whose keys may be published: all that a JWKS is good for."""
KNOWN: Final = PUBLIC | SECRETS.keys()

RSA_BITS: Final = range(2048, 8193)
"""Shorter ones are broken (RFC 7518 §3.3), longer ones hold up the loop."""

MOST_TRIED: Final = 8
"""Keys that are tried for a token that names none: each costs as much as a verification."""


class UnusableKey(ValueError):
    """A key that can verify nothing here. Says why."""


@dataclass(frozen=True, slots=True, repr=False)
class VerifyingKey:
    """A key as PyJWT takes it, and the algorithms it may verify."""

    value: Any
    algorithms: frozenset[str]
    kid: str | None = None


class SignatureHeader(NamedTuple):
    """A token's claims about its own signature, before they are verified."""

    algorithm: str
    kid: str | None


class KeyRing:
    """Keys by their names (`kid`, RFC 7515 §4.1.4). A token costs one look-up (benchmarks/jwt_micro.py)."""

    def __init__(self, keys: Iterable[VerifyingKey]) -> None:
        self.keys: tuple[VerifyingKey, ...] = tuple(keys)
        self._names: frozenset[str] = frozenset(key.kid for key in self.keys if key.kid is not None)
        self._named: dict[tuple[str, str | None], list[VerifyingKey]] = {}
        """By algorithm and name. All keys have the name None, too: that of a token without one."""
        self._nameless: dict[str, list[VerifyingKey]] = {}
        for key in self.keys:
            for algorithm in key.algorithms:
                for kid in {key.kid, None}:
                    _add(self._named.setdefault((algorithm, kid), []), key)
                if key.kid is None:
                    _add(self._nameless.setdefault(algorithm, []), key)

    def candidates(self, header: SignatureHeader) -> Sequence[VerifyingKey]:
        """The keys that may have signed: those of that name, else those without one; for a token without, all."""
        found = self._named.get(header)
        if found is None:
            return () if header.kid in self._names else self._nameless.get(header.algorithm, ())
        return found


def _add(keys: list[VerifyingKey], key: VerifyingKey) -> None:
    if len(keys) < MOST_TRIED:
        keys.append(key)


def check_algorithms(algorithms: object) -> tuple[str, ...]:
    """The algorithms as names that are known. Raises TypeError, ValueError."""
    if isinstance(algorithms, str):
        raise TypeError(f'algorithms: expected a list, as ["{algorithms}"], got the str {algorithms!r}')
    names = tuple(algorithms) if isinstance(algorithms, Iterable) else ()
    if not names:
        raise TypeError(f'algorithms: expected at least one, as ["RS256"], got {algorithms!r}')
    for name in names:
        if isinstance(name, str) and name.lower() == "none":
            raise ValueError('algorithms: "none" would let in everybody who writes a token: it is never verified')
        if name not in KNOWN:
            raise ValueError(f"algorithms: {name!r} is none of {', '.join(sorted(KNOWN))}")
    return names


def ring_of(given: Any, algorithms: Sequence[str]) -> KeyRing:
    """The ring of one key, a list of keys, keys by name, or a JWKS document.

    Raises `UnusableKey` for a key that fits no algorithm and for an algorithm that has no key.
    """
    if isinstance(given, Mapping) and isinstance(given.get("keys"), Sequence):
        given = given["keys"]
    if isinstance(given, Mapping) and "kty" not in given:
        named: list[tuple[str | None, Any]] = [(str(kid), key) for kid, key in given.items()]
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        named = [(None, key) for key in given]
    else:
        named = [(None, given)]
    if not named:
        raise UnusableKey("keys: expected at least one")
    ring = [key_of(key, algorithms, kid) for kid, key in named]
    for name in algorithms:
        if not any(name in key.algorithms for key in ring):
            kinds = ", ".join(sorted({one for key in ring for one in key.algorithms}))
            raise UnusableKey(f"algorithms: {name} has no key here, whose keys are for {kinds}: leave it out")
    return KeyRing(ring)


def key_of(given: Any, algorithms: Iterable[str], kid: str | None = None) -> VerifyingKey:
    """One key, bound to those of the algorithms that it is for. Raises `UnusableKey`."""
    wanted = frozenset(algorithms)
    if isinstance(given, jwt.PyJWK):
        return VerifyingKey(*_bound(given.key, wanted & {given.algorithm_name}), kid or given.key_id)
    if isinstance(given, Mapping):
        return _of_jwk(given, wanted, kid)
    value = _loaded(given) if isinstance(given, str | bytes) else given
    return VerifyingKey(*_bound(value, wanted), kid)


def _of_jwk(jwk: Mapping[str, Any], wanted: frozenset[str], kid: str | None) -> VerifyingKey:
    """RFC 7517 §4: `use`, `key_ops` and `alg` name the permitted uses of a key."""
    if jwk.get("use", "sig") != "sig":
        raise UnusableKey("a JWK whose use is not sig")
    operations = jwk.get("key_ops")
    if isinstance(operations, list) and not {"verify", "sign"} & {one for one in operations if isinstance(one, str)}:
        raise UnusableKey("a JWK whose key_ops are not to verify")
    if (own := jwk.get("alg")) is not None:
        wanted &= {own} if isinstance(own, str) else frozenset()
    name = jwk.get("kid") if kid is None else kid
    try:
        value = jwt.PyJWK(dict(jwk)).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnusableKey(f"a JWK that is no key ({type(error).__name__})") from None
    return VerifyingKey(*_bound(value, wanted), name if isinstance(name, str) else None)


def _bound(value: Any, wanted: frozenset[str]) -> tuple[Any, frozenset[str]]:
    """The public part of a key, or a secret, with the wanted algorithms that its kind is for."""
    public = value.public_key() if hasattr(value, "public_key") and hasattr(value, "private_bytes") else value
    if isinstance(public, bytes):
        return public, _of_secret(public, wanted)
    kind: str
    possible: tuple[str, ...]
    if isinstance(public, rsa.RSAPublicKey):
        kind, possible = "an RSA key", OF_RSA
        if public.key_size not in RSA_BITS:
            raise UnusableKey(f"an RSA key of {public.key_size} bits: {RSA_BITS[0]} to {RSA_BITS[-1]} are taken")
    elif isinstance(public, ec.EllipticCurvePublicKey):
        kind, possible = f"a key of the curve {public.curve.name}", OF_CURVES.get(public.curve.name, ())
    elif isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        kind, possible = "an Edwards curve's key", OF_EDWARDS
    else:
        raise UnusableKey(f"expected a key, as PEM, a secret, a JWK or of cryptography, got {type(value).__name__}")
    fitting = wanted & frozenset(possible)
    if not fitting:
        raise UnusableKey(f"{kind} is for {' or '.join(possible) or 'nothing'}, and not for {_listed(wanted)}")
    return public, fitting


def _of_secret(secret: bytes, wanted: frozenset[str]) -> frozenset[str]:
    fitting = wanted & SECRETS.keys()
    if not fitting:
        raise UnusableKey(
            f"a secret is for HS256, HS384 or HS512, and not for {_listed(wanted)}; those take a public key"
        )
    least = max(SECRETS[name] for name in fitting)
    if len(secret) < least:
        raise UnusableKey(
            f"a secret for {_listed(fitting)} has at least {least} bytes (RFC 7518 §3.2), and this has {len(secret)}: "
            f"python -c 'import secrets; print(secrets.token_urlsafe({least}))' makes one"
        )
    return fitting


def _loaded(text: str | bytes) -> Any:
    """The key in a PEM, a certificate, a line of SSH, else the bytes of a secret. Raises `UnusableKey`."""
    data = text.encode() if isinstance(text, str) else text
    if data.lstrip().startswith(b"{"):
        raise UnusableKey("a key that looks like JSON: give a JWK as a dict, json.loads(...)")
    try:
        if b"-----BEGIN CERTIFICATE" in data:
            return x509.load_pem_x509_certificate(data).public_key()
        if b"-----BEGIN " in data and b"PRIVATE KEY" in data:
            return serialization.load_pem_private_key(data, password=None)
        if b"-----BEGIN " in data:
            return serialization.load_pem_public_key(data)
        if data.startswith((b"ssh-", b"ecdsa-sha2-")):
            return serialization.load_ssh_public_key(data)
    except (ValueError, TypeError) as error:
        if b"\\n" in data:
            raise UnusableKey(
                r"a PEM that has \n in place of its line breaks, as files of environment variables do: "
                r"give key.replace('\\n', '\n')"
            ) from None
        raise UnusableKey(f"a key that cannot be read ({type(error).__name__})") from None
    _refuse_der(data)
    return data


def _refuse_der(data: bytes) -> None:
    """A public key in binary form is not a secret: everybody knows it."""
    if not data.startswith(b"\x30"):  # an ASN.1 SEQUENCE
        return
    for load in (serialization.load_der_public_key, x509.load_der_x509_certificate):
        try:
            load(data)
        except Exception:  # cryptography raises anything for arbitrary bytes
            continue
        raise UnusableKey("a public key in DER form: give it as PEM, or load it with cryptography")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "any that is asked for"
