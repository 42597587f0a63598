"""FastAPI's module of this name."""

from antiphon.templating import Jinja2Templates as Jinja2Templates
