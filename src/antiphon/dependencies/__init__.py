"""Parameters and dependencies: a signature becomes a plan at registration, and the plan runs at connect.

`analyze` and `solve` are the two verbs. Users write the markers (`Depends`, `Query`, …). README.md shows the flow.
"""

from .functions import Body, Cookie, Depends, File, Form, Header, Path, Query, Security
from .params import SecurityScopes
from .plan import Kind, Plan, analyze
from .questions import topics_of
from .solve import Solved, solve
from .uploads import UploadFile

__all__ = [
    "Body",
    "Cookie",
    "Depends",
    "File",
    "Form",
    "Header",
    "Kind",
    "Path",
    "Plan",
    "Query",
    "Security",
    "SecurityScopes",
    "Solved",
    "UploadFile",
    "analyze",
    "solve",
    "topics_of",
]
