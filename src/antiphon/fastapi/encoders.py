"""FastAPI's module of this name."""

from antiphon.encoders import jsonable_encoder as jsonable_encoder
