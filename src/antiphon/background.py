"""Background tasks, which run after the response or the close. They are Starlette's."""

from starlette.background import BackgroundTask as BackgroundTask
from starlette.background import BackgroundTasks as BackgroundTasks
