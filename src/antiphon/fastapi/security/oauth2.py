"""FastAPI's module of this name."""

from antiphon.security import OAuth2 as OAuth2
from antiphon.security import OAuth2AuthorizationCodeBearer as OAuth2AuthorizationCodeBearer
from antiphon.security import OAuth2PasswordBearer as OAuth2PasswordBearer
from antiphon.security import OAuth2PasswordRequestForm as OAuth2PasswordRequestForm
from antiphon.security import OAuth2PasswordRequestFormStrict as OAuth2PasswordRequestFormStrict
from antiphon.security import SecurityScopes as SecurityScopes
