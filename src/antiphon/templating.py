"""HTML templates (needs jinja2). They are Starlette's."""

from starlette.templating import Jinja2Templates as Jinja2Templates
