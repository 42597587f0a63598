"""Typed messages: channels, their handlers, and the wire between them and their clients. README.md tells the rules."""

from .caller import Caller
from .channel import Channel, MessageRouter
from .errors import MessageError
from .options import ChannelOptions, OnError, Wire
from .program import Blueprint, Program
from .shape import AnswerKind, ChannelShape, HandlerKind, HandlerShape, Incoming

__all__ = [
    "AnswerKind",
    "Blueprint",
    "Caller",
    "Channel",
    "ChannelOptions",
    "ChannelShape",
    "HandlerKind",
    "HandlerShape",
    "Incoming",
    "MessageError",
    "MessageRouter",
    "OnError",
    "Program",
    "Wire",
]
