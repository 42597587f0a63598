"""Security schemes: dependencies that take credentials out of a connection and refuse it without them.

Each scheme is callable with any `HTTPConnection`, so it serves HTTP routes and WebSockets alike. Missing or malformed
credentials are `HTTPException` 401 with a `WWW-Authenticate` challenge (RFC 9110 §11.6.1). On a WebSocket that is not
yet accepted it becomes a 401 denial of the handshake. With `auto_error=False` missing credentials are None.

A scheme only takes the credentials out. Whether they are right is for the application to say, which compares secrets in
constant time (`secrets.compare_digest`) and never with `==`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel
from starlette.requests import HTTPConnection

from antiphon.dependencies.params import Form, SecurityBase, SecurityScopes
from antiphon.exceptions import HTTPException
from antiphon.masking import keep_secret
from antiphon.status import HTTP_401_UNAUTHORIZED

__all__ = [
    "APIKeyCookie",
    "APIKeyHeader",
    "APIKeyQuery",
    "HTTPAuthorizationCredentials",
    "HTTPBase",
    "HTTPBasic",
    "HTTPBasicCredentials",
    "HTTPBearer",
    "HTTPDigest",
    "OAuth2",
    "OAuth2AuthorizationCodeBearer",
    "OAuth2PasswordBearer",
    "OAuth2PasswordRequestForm",
    "OAuth2PasswordRequestFormStrict",
    "OpenIdConnect",
    "SecurityBase",
    "SecurityScopes",
    "get_authorization_scheme_param",
]


class HTTPBasicCredentials(BaseModel):
    """The credentials that `HTTPBasic` found: `username`, `password`. Compare with `secrets.compare_digest` on the
    encoded values.

        import secrets

        from antiphon.security import HTTPBasicCredentials

        def is_ann(login: HTTPBasicCredentials) -> bool:
            return login.username == "ann" and secrets.compare_digest(login.password.encode(), b"sesame")
    """

    username: str
    password: str


class HTTPAuthorizationCredentials(BaseModel):
    """An `Authorization` header, split at its first space into `scheme` and `credentials`.

    For example:

        from antiphon.security import HTTPAuthorizationCredentials

        given = HTTPAuthorizationCredentials(scheme="Bearer", credentials="sesame")
    """

    scheme: str
    credentials: str


_Found = TypeVar("_Found")


class _Scheme(SecurityBase):
    """The common part of all schemes: a name, a description, and what happens without credentials."""

    def __init__(self, *, scheme_name: str | None, description: str | None, auto_error: bool) -> None:
        self.scheme_name: str = scheme_name or type(self).__name__
        self.auto_error = auto_error
        self.model: SimpleNamespace = SimpleNamespace(description=description)
        """As FastAPI's schemes keep for OpenAPI. Subclasses written for them read it, such as `model.name`."""

    def make_authenticate_headers(self) -> dict[str, str]:
        """The challenge of a 401. Override for one of your own."""
        return {"WWW-Authenticate": "Bearer"}

    def make_not_authenticated_error(self) -> HTTPException:
        """The exception for missing and for malformed credentials. Override for one of your own."""
        return HTTPException(
            status_code=HTTP_401_UNAUTHORIZED, detail="Not authenticated", headers=self.make_authenticate_headers()
        )

    def _checked(self, found: _Found | None) -> _Found | None:
        """The credentials. Without any, None or, with `auto_error`, the 401."""
        if not found and self.auto_error:
            raise self.make_not_authenticated_error()
        return found or None


def get_authorization_scheme_param(authorization_header_value: str | None) -> tuple[str, str]:
    """Scheme and the rest of an `Authorization` header. A missing part is an empty string (FastAPI's helper).

    For example:

        from antiphon.security import get_authorization_scheme_param

        scheme, token = get_authorization_scheme_param("Bearer sesame")
    """
    scheme, _, credentials = (authorization_header_value or "").partition(" ")
    return scheme, credentials.strip()


def _authorization(connection: HTTPConnection) -> tuple[str, str]:
    return get_authorization_scheme_param(connection.headers.get("Authorization"))


class HTTPBase(_Scheme):
    """Any scheme of the `Authorization` header: gives `HTTPAuthorizationCredentials`.

    The header's scheme is not compared with `scheme`, which only names the challenge. As FastAPI. `scheme_name` (else
    the class's name) and `description` are for OpenAPI pages. With `auto_error=False` missing credentials give None
    instead of the 401.

        from antiphon.security import HTTPAuthorizationCredentials, HTTPBase

        scheme = HTTPBase(scheme="Token")

        @app.websocket("/live")
        async def live(websocket: WebSocket, token: Annotated[HTTPAuthorizationCredentials, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self, *, scheme: str, scheme_name: str | None = None, description: str | None = None, auto_error: bool = True
    ) -> None:
        super().__init__(scheme_name=scheme_name, description=description, auto_error=auto_error)
        self.model.scheme = scheme

    def make_authenticate_headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": self.model.scheme.title()}

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials | None:
        scheme, credentials = _authorization(request)
        if not (scheme and credentials and self._accepts(scheme)):
            return self._checked(None)
        return HTTPAuthorizationCredentials(scheme=scheme, credentials=credentials)

    def _accepts(self, scheme: str) -> bool:
        return True


class HTTPBearer(HTTPBase):
    """`Authorization: Bearer …` (RFC 6750 §2.1): gives `HTTPAuthorizationCredentials`.

    `bearerFormat`, `scheme_name` (else the class's name) and `description` are for OpenAPI pages.
    With `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import HTTPAuthorizationCredentials, HTTPBearer

        scheme = HTTPBearer()

        @app.websocket("/live")
        async def live(websocket: WebSocket, token: Annotated[HTTPAuthorizationCredentials, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self,
        *,
        bearerFormat: str | None = None,  # FastAPI's and OpenAPI's spelling
        scheme_name: str | None = None,
        description: str | None = None,
        auto_error: bool = True,
    ) -> None:
        super().__init__(scheme="bearer", scheme_name=scheme_name, description=description, auto_error=auto_error)
        self.model.bearerFormat = bearerFormat

    def _accepts(self, scheme: str) -> bool:
        return scheme.lower() == "bearer"


class HTTPDigest(HTTPBase):
    """`Authorization: Digest …` (RFC 7616): gives the header's parameters unparsed, and computes no digest.

    `scheme_name` (else the class's name) and `description` are for OpenAPI pages.
    With `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import HTTPAuthorizationCredentials, HTTPDigest

        scheme = HTTPDigest()

        @app.websocket("/live")
        async def live(websocket: WebSocket, login: Annotated[HTTPAuthorizationCredentials, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self, *, scheme_name: str | None = None, description: str | None = None, auto_error: bool = True
    ) -> None:
        super().__init__(scheme="digest", scheme_name=scheme_name, description=description, auto_error=auto_error)

    def _accepts(self, scheme: str) -> bool:
        return scheme.lower() == "digest"


class HTTPBasic(HTTPBase):
    """`Authorization: Basic …` (RFC 7617): gives `HTTPBasicCredentials`.

    Credentials that are there but no base64 of UTF-8 `name:password` are a 401 even with `auto_error=False`: somebody
    tried to log in. Passwords are read as UTF-8, of which the ASCII that FastAPI takes is a part.
    `realm` is named in the challenge. `scheme_name` (else the class's name) and `description` are for OpenAPI pages.
    With `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import HTTPBasic, HTTPBasicCredentials

        scheme = HTTPBasic()

        @app.websocket("/live")
        async def live(websocket: WebSocket, login: Annotated[HTTPBasicCredentials, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self,
        *,
        scheme_name: str | None = None,
        realm: str | None = None,
        description: str | None = None,
        auto_error: bool = True,
    ) -> None:
        super().__init__(scheme="basic", scheme_name=scheme_name, description=description, auto_error=auto_error)
        self.realm = realm

    def make_authenticate_headers(self) -> dict[str, str]:
        if not self.realm:
            return {"WWW-Authenticate": "Basic"}
        quoted = self.realm.replace("\\", "\\\\").replace('"', '\\"')
        return {"WWW-Authenticate": f'Basic realm="{quoted}"'}

    async def __call__(  # type: ignore[override]  # other credentials than its base, as in FastAPI
        self, request: HTTPConnection
    ) -> HTTPBasicCredentials | None:
        scheme, encoded = _authorization(request)
        if scheme.lower() != "basic":
            return self._checked(None)
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise self.make_not_authenticated_error() from error
        username, colon, password = decoded.partition(":")
        if not colon:
            raise self.make_not_authenticated_error()
        return HTTPBasicCredentials(username=username, password=password)


class _APIKey(_Scheme):
    """A secret under an agreed name. The challenge `APIKey` is FastAPI's: no RFC names one."""

    def __init__(
        self, *, name: str, scheme_name: str | None = None, description: str | None = None, auto_error: bool = True
    ) -> None:
        super().__init__(scheme_name=scheme_name, description=description, auto_error=auto_error)
        self.model.name = name

    def make_authenticate_headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "APIKey"}

    async def __call__(self, request: HTTPConnection) -> str | None:
        return self._checked(self._where(request).get(self.model.name))

    def _where(self, connection: HTTPConnection) -> Mapping[str, str]:
        raise NotImplementedError


class APIKeyQuery(_APIKey):
    """A key in the query string: gives the string. Query strings end up in access logs of proxies. antiphon's logs
    mask it.

    `name` is the key's name there. `scheme_name` (else the class's name) and `description` are for OpenAPI pages.
    With `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import APIKeyQuery

        scheme = APIKeyQuery(name="key")

        @app.websocket("/live")
        async def live(websocket: WebSocket, key: Annotated[str, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self, *, name: str, scheme_name: str | None = None, description: str | None = None, auto_error: bool = True
    ) -> None:
        super().__init__(name=name, scheme_name=scheme_name, description=description, auto_error=auto_error)
        keep_secret(name)

    def _where(self, connection: HTTPConnection) -> Mapping[str, str]:
        return connection.query_params


class APIKeyHeader(_APIKey):
    """A key in a header: gives the string. Browsers cannot set headers on a WebSocket.

    `name` is the key's name there. `scheme_name` (else the class's name) and `description` are for OpenAPI pages.
    With `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import APIKeyHeader

        scheme = APIKeyHeader(name="X-Key")

        @app.websocket("/live")
        async def live(websocket: WebSocket, key: Annotated[str, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def _where(self, connection: HTTPConnection) -> Mapping[str, str]:
        return connection.headers


class APIKeyCookie(_APIKey):
    """A key in a cookie: gives the string. Browsers send it from any site. Check the `Origin` header.

    `name` is the key's name there. `scheme_name` (else the class's name) and `description` are for OpenAPI pages.
    With `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import APIKeyCookie

        scheme = APIKeyCookie(name="session")

        @app.websocket("/live")
        async def live(websocket: WebSocket, key: Annotated[str, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def _where(self, connection: HTTPConnection) -> Mapping[str, str]:
        return connection.cookies


class OAuth2(_Scheme):
    """The whole `Authorization` header as a string. Base of the OAuth2 schemes (RFC 6749).

    `flows` are OpenAPI's, by name. `scheme_name` (else the class's name) and `description` are for OpenAPI pages.
    With `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import OAuth2

        scheme = OAuth2()

        @app.websocket("/live")
        async def live(websocket: WebSocket, header: Annotated[str, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self,
        *,
        flows: Mapping[str, Any] | None = None,
        scheme_name: str | None = None,
        description: str | None = None,
        auto_error: bool = True,
    ) -> None:
        super().__init__(scheme_name=scheme_name, description=description, auto_error=auto_error)
        self.model.flows = dict(flows or {})

    async def __call__(self, request: HTTPConnection) -> str | None:
        return self._checked(request.headers.get("Authorization"))


class _OAuth2Bearer(OAuth2):
    async def __call__(self, request: HTTPConnection) -> str | None:
        scheme, token = _authorization(request)
        return self._checked(token if scheme.lower() == "bearer" else None)


class OAuth2PasswordBearer(_OAuth2Bearer):
    """The bearer token of OAuth2's password flow: gives the token.

    `tokenUrl`, `refreshUrl` and `scopes` (names and their descriptions) are kept for OpenAPI pages. Nothing is
    fetched. `scheme_name` (else the class's name) and `description` are for OpenAPI pages. With `auto_error=False`
    missing credentials give None instead of the 401.

        from antiphon.security import OAuth2PasswordBearer

        scheme = OAuth2PasswordBearer(tokenUrl="/token")

        @app.websocket("/live")
        async def live(websocket: WebSocket, token: Annotated[str, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self,
        tokenUrl: str,  # FastAPI's and OpenAPI's spelling
        scheme_name: str | None = None,
        scopes: dict[str, str] | None = None,
        description: str | None = None,
        auto_error: bool = True,
        refreshUrl: str | None = None,
    ) -> None:
        flow = {"tokenUrl": tokenUrl, "refreshUrl": refreshUrl, "scopes": scopes or {}}
        super().__init__(
            flows={"password": flow}, scheme_name=scheme_name, description=description, auto_error=auto_error
        )


class OAuth2AuthorizationCodeBearer(_OAuth2Bearer):
    """The bearer token of OAuth2's authorization code flow: gives the token.

    `authorizationUrl`, `tokenUrl`, `refreshUrl` and `scopes` (names and their descriptions) are kept for OpenAPI
    pages. Nothing is fetched. `scheme_name` (else the class's name) and `description` are for OpenAPI pages. With
    `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import OAuth2AuthorizationCodeBearer

        scheme = OAuth2AuthorizationCodeBearer("https://login.example/authorize", "https://login.example/token")

        @app.websocket("/live")
        async def live(websocket: WebSocket, token: Annotated[str, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self,
        authorizationUrl: str,  # FastAPI's and OpenAPI's spelling
        tokenUrl: str,
        refreshUrl: str | None = None,
        scheme_name: str | None = None,
        scopes: dict[str, str] | None = None,
        description: str | None = None,
        auto_error: bool = True,
    ) -> None:
        flow = {
            "authorizationUrl": authorizationUrl,
            "tokenUrl": tokenUrl,
            "refreshUrl": refreshUrl,
            "scopes": scopes or {},
        }
        super().__init__(
            flows={"authorizationCode": flow}, scheme_name=scheme_name, description=description, auto_error=auto_error
        )


class OpenIdConnect(_Scheme):
    """The whole `Authorization` header of an OpenID Connect client, as a string. Nothing is verified.

    `openIdConnectUrl`, `scheme_name` (else the class's name) and `description` are for OpenAPI pages.
    With `auto_error=False` missing credentials give None instead of the 401.

        from antiphon.security import OpenIdConnect

        scheme = OpenIdConnect(openIdConnectUrl="https://login.example/.well-known/openid-configuration")

        @app.websocket("/live")
        async def live(websocket: WebSocket, header: Annotated[str, Depends(scheme)]) -> None:
            await websocket.accept()
    """

    def __init__(
        self,
        *,
        openIdConnectUrl: str,  # FastAPI's and OpenAPI's spelling
        scheme_name: str | None = None,
        description: str | None = None,
        auto_error: bool = True,
    ) -> None:
        super().__init__(scheme_name=scheme_name, description=description, auto_error=auto_error)
        self.model.openIdConnectUrl = openIdConnectUrl

    async def __call__(self, request: HTTPConnection) -> str | None:
        return self._checked(request.headers.get("Authorization"))


class OAuth2PasswordRequestForm:
    """The form of OAuth2's password flow (RFC 6749 §4.3.2) as a dependency of an HTTP route: `Depends()`.

    Needs python-multipart. The form's fields are attributes: `grant_type` ("password" or None), `username`,
    `password`, `client_id`, `client_secret`. `scopes` is the form's `scope`, split at spaces.

        from antiphon.security import OAuth2PasswordRequestForm

        @app.post("/token")
        async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> dict[str, str]:
            return {"access_token": form.username, "token_type": "bearer"}
    """

    def __init__(
        self,
        *,
        grant_type: Annotated[str | None, Form(pattern="^password$")] = None,
        username: Annotated[str, Form()],
        password: Annotated[str, Form(json_schema_extra={"format": "password"})],
        scope: Annotated[str, Form()] = "",
        client_id: Annotated[str | None, Form()] = None,
        client_secret: Annotated[str | None, Form(json_schema_extra={"format": "password"})] = None,
    ) -> None:
        self.grant_type = grant_type
        self.username = username
        self.password = password
        self.scopes: list[str] = scope.split()
        self.client_id = client_id
        self.client_secret = client_secret


class OAuth2PasswordRequestFormStrict(OAuth2PasswordRequestForm):
    """`OAuth2PasswordRequestForm` that demands `grant_type=password`, as the RFC does.

    The other fields are the same: `username`, `password`, `scope`, `client_id`, `client_secret`.
    """

    def __init__(
        self,
        grant_type: Annotated[str, Form(pattern="^password$")],
        username: Annotated[str, Form()],
        password: Annotated[str, Form()],
        scope: Annotated[str, Form()] = "",
        client_id: Annotated[str | None, Form()] = None,
        client_secret: Annotated[str | None, Form()] = None,
    ) -> None:
        super().__init__(
            grant_type=grant_type,
            username=username,
            password=password,
            scope=scope,
            client_id=client_id,
            client_secret=client_secret,
        )
