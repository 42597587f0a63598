"""Uploaded files: Starlette's `UploadFile` as a type that pydantic knows, alone, in lists and in models.

Knows nothing of plans; only HTTP routes have a body that files could come in.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema
from starlette.datastructures import UploadFile as StarletteUploadFile


class UploadFile(StarletteUploadFile):
    """An uploaded file: annotate a parameter of an HTTP route with it (FastAPI's `UploadFile`).

    Needs the package python-multipart. The parameter gets the object that Starlette's form parser has made. It is
    closed with the response. `filename` and `headers` are the form part's, `size` is in bytes.

        @app.post("/pictures")
        async def keep(picture: UploadFile) -> str | None:
            print(len(await picture.read()))
            return picture.filename
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(StarletteUploadFile, cls_repr="UploadFile")


def forms_are_readable() -> bool:
    """Whether the package is there that Starlette's form parser needs, under the new name or the old one."""
    return any(find_spec(name) is not None for name in ("python_multipart", "multipart"))
