"""FastAPI's module of this name."""

from antiphon.testclient import TestClient as TestClient
