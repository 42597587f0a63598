"""FastAPI's module of this name."""

from antiphon.security import HTTPAuthorizationCredentials as HTTPAuthorizationCredentials
from antiphon.security import HTTPBase as HTTPBase
from antiphon.security import HTTPBasic as HTTPBasic
from antiphon.security import HTTPBasicCredentials as HTTPBasicCredentials
from antiphon.security import HTTPBearer as HTTPBearer
from antiphon.security import HTTPDigest as HTTPDigest
