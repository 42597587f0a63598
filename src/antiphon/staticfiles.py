"""Static files, to be mounted; they are Starlette's."""

from starlette.staticfiles import StaticFiles as StaticFiles
