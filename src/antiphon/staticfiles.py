"""Static files, to be mounted. They are Starlette's."""

from starlette.staticfiles import StaticFiles as StaticFiles
