from .pipe import Flusher as Flusher
from .pipe import Pipe as Pipe
from .pipe import Turns as Turns
