"""Typed messages."""
