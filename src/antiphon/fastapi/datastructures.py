"""FastAPI's module of this name."""

from antiphon.datastructures import URL as URL
from antiphon.datastructures import Address as Address
from antiphon.datastructures import FormData as FormData
from antiphon.datastructures import Headers as Headers
from antiphon.datastructures import QueryParams as QueryParams
from antiphon.datastructures import State as State
from antiphon.datastructures import UploadFile as UploadFile
