"""FastAPI's package of this name."""

from antiphon.security import APIKeyCookie as APIKeyCookie
from antiphon.security import APIKeyHeader as APIKeyHeader
from antiphon.security import APIKeyQuery as APIKeyQuery
from antiphon.security import HTTPAuthorizationCredentials as HTTPAuthorizationCredentials
from antiphon.security import HTTPBasic as HTTPBasic
from antiphon.security import HTTPBasicCredentials as HTTPBasicCredentials
from antiphon.security import HTTPBearer as HTTPBearer
from antiphon.security import HTTPDigest as HTTPDigest
from antiphon.security import OAuth2 as OAuth2
from antiphon.security import OAuth2AuthorizationCodeBearer as OAuth2AuthorizationCodeBearer
from antiphon.security import OAuth2PasswordBearer as OAuth2PasswordBearer
from antiphon.security import OAuth2PasswordRequestForm as OAuth2PasswordRequestForm
from antiphon.security import OAuth2PasswordRequestFormStrict as OAuth2PasswordRequestFormStrict
from antiphon.security import OpenIdConnect as OpenIdConnect
from antiphon.security import SecurityScopes as SecurityScopes
