"""FastAPI's module of this name."""

from antiphon.background import BackgroundTasks as BackgroundTasks
