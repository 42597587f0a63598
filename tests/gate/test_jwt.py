"""`JWT`: good tokens, the errors for bad ones, and settings that cannot work at all."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jwt as pyjwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from antiphon.gate import JWKS, JWT, Identity, InvalidToken

from .tokens import ALGORITHMS, SECRET, Watch, claims, jwk, kept, no_token_in_logs, part, pem, private_key, signed

ASK = "ask the issuer for one that is"
NAME_IT = "name its issuer in JWT(issuer=), if you trust it"
GIVE_IT = "give JWT() the issuer's key, if the token is genuine"
NO_SUCH_KEY = f"the signature is not that of a key we know; {GIVE_IT}"

__all__ = ["Watch", "no_token_in_logs"]


async def identity(scheme: JWT, token: str) -> Identity:
    assert scheme.verify is not None
    return await scheme.verify(token)


async def refused(scheme: JWT, token: str) -> str:
    """The line in the log."""
    with pytest.raises(InvalidToken) as caught:
        await identity(scheme, kept(token))
    assert caught.value.status_code == 401
    assert caught.value.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    assert caught.value.detail == "Invalid token"
    assert not token or token not in caught.value.note
    return caught.value.note


# ---------------------------------------------------------------- good tokens


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", ["pem", "bytes", "object", "jwk", "private"])
async def test_a_token_of_every_algorithm_is_verified(algorithm: str, form: str) -> None:
    key = private_key(algorithm)
    given: Any = {
        "pem": pem(key),
        "bytes": pem(key).encode(),
        "object": key.encode() if isinstance(key, str) else key.public_key(),
        "jwk": jwk(algorithm, None),
        "private": key,
    }[form]
    assert (await identity(JWT(given, algorithms=[algorithm]), signed(algorithm))).user == "ada"
    other = signed(algorithm, "other")
    assert await refused(JWT(given, algorithms=[algorithm]), other) == NO_SUCH_KEY


async def test_every_edwards_curve_is_one_algorithm() -> None:
    scheme = JWT(keys=[private_key("EdDSA"), private_key("EdDSA", "448")], algorithms=["EdDSA"])
    assert (await identity(scheme, signed("EdDSA", "448"))).user == "ada"
    assert (await identity(scheme, signed("EdDSA"))).user == "ada"


async def test_a_certificate_and_a_line_of_ssh_hold_keys() -> None:
    key = private_key("RS256")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    for given in (certificate, line, line.decode(), pyjwt.PyJWK(jwk("RS256", "a"))):
        assert (await identity(JWT(given, algorithms=["RS256"]), signed("RS256"))).user == "ada"


async def test_the_identity_says_what_the_token_says() -> None:
    now = int(time.time())
    token = signed(iat=now - 5, exp=now + 60, sid="s1", jti="t1", scope="read write", aud=["a", "b"], iss="i", x=1)
    scheme = JWT(SECRET, algorithms=["HS256"], audience="b", issuer=["h", "i"], leeway=7)
    found = await identity(scheme, token)
    assert found == Identity(
        user="ada", session="s1", issued_at=now - 5, expires_at=now + 67, scopes=frozenset({"read", "write"})
    )
    assert found.claims["x"] == 1
    assert "'x'" not in repr(found)
    with pytest.raises(TypeError):
        found.claims["x"] = 2  # type: ignore[index]


async def test_claims_have_the_names_that_the_issuer_gave_them() -> None:
    scheme = JWT(SECRET, algorithms=["HS256"], user_claim="uid", scopes_claim="permissions", required=[])
    token = signed(sub=None, uid=7, permissions=["read"], exp=None, jti="t1")
    assert await identity(scheme, token) == Identity(
        user="7", session="t1", issued_at=(await identity(scheme, token)).issued_at, scopes=frozenset({"read"})
    )


async def test_of_two_claims_of_one_name_the_last_counts() -> None:
    """RFC 7519 §4 lets a parser do so. The issuer has signed both."""
    head, now = part({"alg": "HS256"}), int(time.time())
    body = part(f'{{"sub": "bob", "sub": "ada", "exp": {now + 60}}}'.encode())
    token = kept(f"{head}.{body}." + part(_mac(f"{head}.{body}")))
    assert (await identity(JWT(SECRET, algorithms=["HS256"]), token)).user == "ada"


def _mac(text: str, secret: bytes = SECRET.encode()) -> bytes:
    made: bytes = pyjwt.algorithms.get_default_algorithms()["HS256"].sign(text.encode(), secret)
    return made


def by_hand(header: Any, body: Any, secret: bytes = SECRET.encode()) -> str:
    head = f"{part(header)}.{part(body)}"
    return f"{head}.{part(_mac(head, secret))}"


# ---------------------------------------------------------------- which key


async def test_a_token_names_its_key() -> None:
    scheme = JWT(keys={"a": SECRET + "a", "b": SECRET + "b"}, algorithms=["HS256"])
    assert (await identity(scheme, signed(name="b", headers={"kid": "b"}))).user == "ada"
    assert "signature" in await refused(scheme, signed(name="b", headers={"kid": "a"}))
    assert (
        await refused(scheme, signed(name="b", headers={"kid": "c"}))
        == f"kid: no key for HS256 has the name 'c'; {GIVE_IT}"
    )
    assert (await identity(scheme, signed(name="b"))).user == "ada"  # tried one by one


async def test_a_document_of_keys_is_taken_as_it_is() -> None:
    document = {"keys": [jwk("RS256", "r"), jwk("ES256", "e")]}
    scheme = JWT(keys=document, algorithms=["RS256", "ES256"])
    assert (await identity(scheme, signed("ES256", headers={"kid": "e"}))).user == "ada"
    assert "no key for RS256 has the name 'e'" in await refused(scheme, signed("RS256", headers={"kid": "e"}))


async def test_keys_without_a_name_are_for_names_that_no_key_has() -> None:
    document = {"keys": [jwk("ES256", "e"), jwk("RS256", None), jwk("RS256", "r", name="another")]}
    scheme = JWT(keys=document, algorithms=["RS256", "ES256"])
    for headers in (None, {"kid": "new"}):
        assert (await identity(scheme, signed("RS256", headers=headers))).user == "ada"
    assert "no key for RS256 has the name 'e'" in await refused(scheme, signed("RS256", headers={"kid": "e"}))
    assert "signature" in await refused(scheme, signed("RS256", headers={"kid": "r"}))
    assert "no key for ES256 has the name 'new'" in await refused(scheme, signed("ES256", headers={"kid": "new"}))
    assert (await identity(scheme, signed("RS256", name="another"))).user == "ada"  # every key is tried


async def test_at_most_eight_keys_are_tried_for_a_token_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    decode = pyjwt.PyJWT.decode_complete

    def counted(*args: Any, **more: Any) -> Any:
        tried.append(args)
        return decode(*args, **more)

    monkeypatch.setattr(pyjwt.PyJWT, "decode_complete", counted)
    scheme = JWT(keys=[f"{SECRET}{number}" for number in range(20)], algorithms=["HS256"])
    await refused(scheme, signed(name="none of them"))
    assert len(tried) == 8


async def test_a_public_key_is_no_secret_whoever_says_so() -> None:
    """The classic: HS256 over the published key. PyJWT refuses to sign so. An attacker does not ask it."""
    public = pem(private_key("RS256"))
    forged = by_hand({"alg": "HS256"}, claims(), public.encode())
    assert await refused(JWT(public, algorithms=["RS256"]), forged) == (
        "alg: 'HS256' is not among the algorithms RS256; add it, if the issuer signs so"
    )
    both = JWT(keys=[public, SECRET], algorithms=["RS256", "HS256"])
    assert "signature" in await refused(both, forged)
    assert (await identity(both, signed())).user == "ada"
    assert (await identity(both, signed("RS256"))).user == "ada"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 1, [], {}, ["HS256"], "HS257", "hs256"])
async def test_no_algorithm_but_ours_is_read_from_a_header(alg: Any) -> None:
    scheme = JWT(SECRET, algorithms=["HS256"])
    for token in (by_hand({"alg": alg}, claims()), f"{part({'alg': alg})}.{part(claims())}."):
        told = await refused(scheme, token)
        assert "is not among the algorithms HS256" in told
        assert ("add it" in told) == (str(alg).lower() != "none")  # nobody is told to let unsigned tokens in


async def test_a_key_of_rsa_verifies_only_with_what_was_asked_for() -> None:
    scheme = JWT(private_key("RS256"), algorithms=["PS256"])
    assert (await identity(scheme, signed("PS256"))).user == "ada"
    assert "alg" in await refused(scheme, signed("RS256"))


# ---------------------------------------------------------------- which token

LATER = 10**6
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("expired", {"exp": -11}, "exp: the token has expired; log in again, or refresh it in time"),
    (
        "not yet",
        {"nbf": +30},
        "nbf: the token is not valid yet; a leeway= makes up for clocks that differ, and not for milliseconds",
    ),
    (
        "issued in the future",
        {"iat": +30},
        "iat: the token is not valid yet; a leeway= makes up for clocks that differ, and not for milliseconds",
    ),
]


@pytest.mark.parametrize(("_name", "shifted", "note"), CASES)
async def test_a_token_out_of_its_time_is_refused(_name: str, shifted: dict[str, int], note: str) -> None:
    times: dict[str, Any] = {name: int(time.time()) + shift for name, shift in shifted.items()}
    scheme = JWT(SECRET, algorithms=["HS256"])
    assert await refused(scheme, signed(**times)) == note
    assert (await identity(JWT(SECRET, algorithms=["HS256"], leeway=100), signed(**times))).user == "ada"


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [
        "soon",
        # with a name: the workers of a run must agree on the names of their tests
        pytest.param(str(int(time.time()) + 60), id="a number as text"),
        *(True, [], {}, 1e400, -1e400, float("nan"), 9e14, -5, 10**30, 10**400),
    ],
)
async def test_a_time_that_is_none_is_refused(claim: str, value: Any) -> None:
    body = claims(**{claim: value})
    note = await refused(JWT(SECRET, algorithms=["HS256"], leeway=3600), by_hand({"alg": "HS256"}, body))
    assert claim in note or "malformed" in note or "expired" in note


@pytest.mark.parametrize(
    ("said", "wanted", "note"),
    [
        ({"aud": "shop"}, {"audience": "chat"}, "aud: the token is not for chat; " + ASK),
        (
            {"aud": ["shop", "desk"]},
            {"audience": ["chat", "talk"]},
            "aud: the token is not for chat or talk; " + ASK,
        ),
        ({"aud": "shop"}, {}, "aud: the token is for a certain audience, and JWT(audience=) names none"),
        ({"aud": [1]}, {"audience": "chat"}, "aud: the token is not for chat; " + ASK),
        ({}, {"audience": "chat"}, "aud: the token does not have it; its issuer has to write it"),
        (
            {"iss": "them"},
            {"issuer": "us"},
            "iss: the token is not from us; " + NAME_IT,
        ),
        (
            {"iss": "u"},
            {"issuer": "us"},
            "iss: the token is not from us; " + NAME_IT,
        ),
        ({}, {"issuer": "us"}, "iss: the token does not have it; its issuer has to write it"),
        ({"exp": None}, {}, "exp: the token does not have it; its issuer has to write it"),
        ({"sub": None}, {}, "sub: the token does not have it; its issuer has to write it"),
        ({"sub": "\ud800"}, {}, "sub: expected characters of Unicode, got a lone surrogate"),
        ({"sub": ""}, {}, "sub: expected a str that is not empty"),
        ({"sub": True}, {}, "sub: expected a str that is not empty"),
        ({"sub": ["ada"]}, {}, "sub: expected a str that is not empty"),
        ({"sub": {"name": "ada"}}, {}, "sub: expected a str that is not empty"),
        ({}, {"required": ["exp", "tenant"]}, "tenant: the token does not have it; its issuer has to write it"),
        ({"sid": 5}, {}, "sid, jti: expected a str"),
        ({"scope": 5}, {}, "scope: expected names with spaces between, or a list of them"),
        ({"scope": ["a", 1]}, {}, "scope: expected names with spaces between, or a list of them"),
    ],
)
async def test_what_is_wrong_with_a_token_names_the_claim(
    said: dict[str, Any], wanted: dict[str, Any], note: str
) -> None:
    body = claims(**said)
    assert await refused(JWT(SECRET, algorithms=["HS256"], **wanted), by_hand({"alg": "HS256"}, body)) == note


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


HOSTILE: dict[str, Callable[[], str]] = {
    "words": lambda: "a-word",
    "two parts": lambda: ".".join(signed().split(".")[:2]),
    "four parts": lambda: signed() + ".aaaa",
    "an encrypted token": lambda: "a.b.c.d.e",
    "dots": lambda: "." * 2000,
    "empty parts": lambda: "..",
    "a header that is no base64": lambda: "!!!!.e30.e30",
    "a header that is no JSON": lambda: f"{part(b'{')}.{part({})}.aaaa",
    "a header that is a list": lambda: f"{part([])}.{part({})}.aaaa",
    "a nested header": lambda: f"{part(nested(2500))}.{part({})}.aaaa",
    "a header of lone surrogates": lambda: f"{part(b'{' + bytes([34, 0xED, 0xA0, 0x80, 34]) + b':1}')}.e30.aaaa",
    "a nested body": lambda: by_hand({"alg": "HS256"}, nested(2500)),
    "a body that is a list": lambda: by_hand({"alg": "HS256"}, []),
    "a body that is null": lambda: by_hand({"alg": "HS256"}, None),
    "a body that is no JSON": lambda: by_hand({"alg": "HS256"}, b"sub=ada"),
    "a token in a token": lambda: by_hand({"alg": "HS256", "cty": "JWT"}, signed().encode()),
    "a number of 5000 digits": lambda: by_hand({"alg": "HS256"}, b'{"exp": ' + b"9" * 5000 + b"}"),
    "an extension": lambda: by_hand({"alg": "HS256", "crit": ["exp"], "exp": 1}, claims()),
    "an extension of nothing": lambda: by_hand({"alg": "HS256", "crit": []}, claims()),
    "a body beside it": lambda: by_hand({"alg": "HS256", "b64": False, "crit": ["b64"]}, claims()),
    "a key of its own": lambda: by_hand(
        {"alg": "HS256", "jwk": {"kty": "oct", "k": part(b"x" * 32)}}, claims(), b"x" * 32
    ),
    "the address of a key": lambda: by_hand({"alg": "HS256", "jku": "http://evil.test/"}, claims(), b"x" * 32),
    "a name that is a path": lambda: by_hand({"alg": "HS256", "kid": "../../dev/null"}, claims(), b"\0" * 32),
    "a name that is a list": lambda: by_hand({"alg": "HS256", "kid": ["a"]}, claims()),
    "no signature": lambda: ".".join([*signed().split(".")[:2], ""]),
    "a cut signature": lambda: signed()[:-3],
    "a signature of another": lambda: ".".join([*signed().split(".")[:2], signed(sub="eve").split(".")[2]]),
    "a space before": lambda: " " + signed(),
    "a null byte": lambda: signed() + "\0",
    "letters of another script": lambda: signed() + "é",
    "a lone surrogate": lambda: signed() + "\ud800",
    "nothing": lambda: "",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_is_no_token_is_refused_and_nothing_breaks(name: str) -> None:
    assert await refused(JWT(SECRET, algorithms=["HS256"]), HOSTILE[name]())


async def test_a_huge_token_is_refused_before_anybody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = JWT(SECRET, algorithms=["HS256"])
    monkeypatch.setattr(json, "loads", None)  # parsing fails
    note = await refused(scheme, "a" * 8193)
    assert note == "the token has 8193 characters, and 8192 are the most"
    assert "parts" in await refused(scheme, "a" * 8192)


# ---------------------------------------------------------------- impossible settings


def weak_rsa() -> Any:
    return rsa.generate_private_key(65537, 1024).public_key()


BAD: list[tuple[str, Callable[[], JWT], str]] = [
    ("no key", lambda: JWT(algorithms=["HS256"]), "exactly one of key, keys, jwks_url; got none"),
    ("two", lambda: JWT(SECRET, jwks_url="https://a.test/", algorithms=["RS256"]), "got key and jwks_url"),
    ("no algorithm", lambda: JWT(SECRET, algorithms=[]), "at least one"),
    ("a str", lambda: JWT(SECRET, algorithms="HS256"), r'as \["HS256"\]'),
    ("none", lambda: JWT(SECRET, algorithms=["HS256", "none"]), "never verified"),
    ("unknown", lambda: JWT(SECRET, algorithms=["HS255"]), "'HS255' is none of"),
    ("public as secret", lambda: JWT(pem(private_key("RS256")), algorithms=["HS256"]), "an RSA key is for RS256 or"),
    ("secret as public", lambda: JWT(SECRET, algorithms=["RS256"]), "a secret is for HS256, HS384 or HS512"),
    ("another curve", lambda: JWT(private_key("ES256"), algorithms=["ES384"]), "secp256r1 is for ES256, and not for"),
    ("rsa for curves", lambda: JWT(private_key("RS256"), algorithms=["EdDSA"]), "and not for EdDSA"),
    ("mixed", lambda: JWT(SECRET, algorithms=["HS256", "RS256"]), "RS256 has no key here, whose keys are for HS256"),
    ("one of two fits none", lambda: JWT(keys=[SECRET, private_key("RS256")], algorithms=["HS256"]), "an RSA key"),
    ("der", lambda: JWT(_der(), algorithms=["HS256"]), "a public key in DER form"),
    ("short", lambda: JWT("secret", algorithms=["HS256"]), "at least 32 bytes .*, and this has 6"),
    ("empty", lambda: JWT("", algorithms=["HS256"]), "at least 32 bytes"),
    ("weak rsa", lambda: JWT(weak_rsa(), algorithms=["RS256"]), "1024 bits"),
    ("a JWK as text", lambda: JWT(json.dumps(jwk("RS256", "a")), algorithms=["RS256"]), "give a JWK as a dict"),
    (
        "broken pem",
        lambda: JWT("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", algorithms=["RS256"]),
        "read",
    ),
    ("to encrypt", lambda: JWT(jwk("RS256", "a", use="enc"), algorithms=["RS256"]), "use is not sig"),
    ("its own alg", lambda: JWT(jwk("RS256", "a", alg="RS512"), algorithms=["RS256"]), "not for any"),
    ("a number", lambda: JWT(5, algorithms=["RS256"]), "expected a key, as PEM"),
    ("keys as key", lambda: JWT({"a": SECRET}, algorithms=["HS256"]), r"several keys are JWT\(keys=...\)"),
    ("a list as key", lambda: JWT([SECRET], algorithms=["HS256"]), r"several are JWT\(keys=...\)"),
    ("no keys", lambda: JWT(keys=[], algorithms=["HS256"]), "at least one"),
    ("published secrets", lambda: JWT(jwks_url="https://a.test/", algorithms=["HS256"]), "keys are not secret"),
    ("plain", lambda: JWT(jwks_url="http://a.test/", algorithms=["RS256"]), "use https"),
    ("no address", lambda: JWT(jwks_url="a.test", algorithms=["RS256"]), "expected an address"),
    ("a password", lambda: JWT(jwks_url="https://u:p@a.test/", algorithms=["RS256"]), "no user or password"),
    ("a numeric leeway", lambda: JWT(SECRET, algorithms=["HS256"], leeway="5"), "leeway"),  # type: ignore[arg-type]
    ("a long leeway", lambda: JWT(SECRET, algorithms=["HS256"], leeway=10**5), "leeway"),
    ("a claim", lambda: JWT(SECRET, algorithms=["HS256"], user_claim=""), "user_claim"),
    ("required as str", lambda: JWT(SECRET, algorithms=["HS256"], required="exp"), "required"),
    ("an empty audience", lambda: JWT(SECRET, algorithms=["HS256"], audience=""), "audience"),
    ("no audience", lambda: JWT(SECRET, algorithms=["HS256"], audience=[]), "audience"),
    ("cooldown", lambda: JWT(keys=JWKS("https://a.test/", cooldown=0), algorithms=["RS256"]), "cooldown"),
]


def _der() -> bytes:
    public: bytes = (
        private_key("RS256")
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return public


@pytest.mark.parametrize(("name", "make", "says"), BAD, ids=[name for name, _, _ in BAD])
def test_what_cannot_work_is_refused_where_it_is_written(name: str, make: Callable[[], JWT], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        make()
    assert SECRET not in str(caught.value)


def test_without_pyjwt_everything_else_works_and_jwt_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['jwt'] = None\n"
        "from antiphon import App\n"
        "from antiphon.gate import JWT, WebSocketBearer\n"
        "WebSocketBearer(); App()\n"
        "try: JWT('x' * 32, algorithms=['HS256'])\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "JWT needs the package 'jwt': pip install \"antiphon[jwt]\"\n"


def test_who_does_not_use_it_does_not_load_it() -> None:
    program = "import sys, antiphon.gate; print('jwt' in sys.modules, 'cryptography' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"


def test_a_key_out_of_an_environment_variable_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"a PEM that has .n in place of its line breaks"):
        JWT(pem(private_key("RS256")).replace("\n", "\\n"), algorithms=["RS256"])
