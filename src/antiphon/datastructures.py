"""Headers, URLs and form data, under FastAPI's names; Starlette's, but for `UploadFile`."""

from starlette.datastructures import URL as URL
from starlette.datastructures import Address as Address
from starlette.datastructures import FormData as FormData
from starlette.datastructures import Headers as Headers
from starlette.datastructures import QueryParams as QueryParams
from starlette.datastructures import State as State
from starlette.datastructures import URLPath as URLPath

from .dependencies import UploadFile as UploadFile
