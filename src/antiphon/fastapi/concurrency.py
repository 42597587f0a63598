"""FastAPI's module of this name."""

from antiphon.concurrency import asynccontextmanager as asynccontextmanager
from antiphon.concurrency import iterate_in_threadpool as iterate_in_threadpool
from antiphon.concurrency import run_in_threadpool as run_in_threadpool
from antiphon.concurrency import run_until_first_complete as run_until_first_complete
