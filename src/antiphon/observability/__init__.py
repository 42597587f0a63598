"""Observability: metrics for Prometheus (`prometheus`), health for load balancers (`healthz`)."""

from typing import TYPE_CHECKING

from antiphon.lazily import lazily

if not TYPE_CHECKING:  # for the advice of `antiphon.misspelt`
    __getattr__, __dir__ = lazily(__name__, {})
