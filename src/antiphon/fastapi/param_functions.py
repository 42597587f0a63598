"""FastAPI's module of this name: the markers as functions."""

from antiphon.dependencies import Body as Body
from antiphon.dependencies import Cookie as Cookie
from antiphon.dependencies import Depends as Depends
from antiphon.dependencies import File as File
from antiphon.dependencies import Form as Form
from antiphon.dependencies import Header as Header
from antiphon.dependencies import Path as Path
from antiphon.dependencies import Query as Query
from antiphon.dependencies import Security as Security
