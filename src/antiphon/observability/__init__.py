"""Seeing what runs: metrics for Prometheus (`prometheus`), health for load balancers (`healthz`)."""
