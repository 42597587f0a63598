"""CORSMiddleware, which is Starlette's."""

from starlette.middleware.cors import CORSMiddleware as CORSMiddleware
