"""FastAPI's module of this name: the markers as classes."""

from antiphon.dependencies.params import Body as Body
from antiphon.dependencies.params import Cookie as Cookie
from antiphon.dependencies.params import Depends as Depends
from antiphon.dependencies.params import File as File
from antiphon.dependencies.params import Form as Form
from antiphon.dependencies.params import Header as Header
from antiphon.dependencies.params import Param as Param
from antiphon.dependencies.params import Path as Path
from antiphon.dependencies.params import Query as Query
from antiphon.dependencies.params import Security as Security
