"""Typed messages: channels, their handlers, and the wire between them and their clients. README.md tells the rules."""

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
