"""FastAPI's module of this name."""

from antiphon.app import App

FastAPI = App
