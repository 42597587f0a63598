"""FastAPI's module of this name."""

from antiphon.middleware.cors import CORSMiddleware as CORSMiddleware
