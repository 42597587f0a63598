"""Typed messages: channels, their handlers, and the wire between them and their clients. README.md tells the rules."""

from typing import TYPE_CHECKING

from antiphon.lazily import lazily

from .caller import Caller
from .channel import Channel, MessageRouter
from .errors import MessageError
from .options import ChannelOptions, OnError, Wire

__all__ = [
    "Caller",
    "Channel",
    "ChannelOptions",
    "MessageError",
    "MessageRouter",
    "OnError",
    "Wire",
]

if not TYPE_CHECKING:  # for the advice of `antiphon.misspelt`
    __getattr__, __dir__ = lazily(__name__, {})
