"""HTML templates (needs jinja2); they are Starlette's."""

from starlette.templating import Jinja2Templates as Jinja2Templates
