"""FastAPI's names for antiphon's objects: `from antiphon.fastapi import FastAPI, WebSocket`. Re-exports only."""

from antiphon import status as status
from antiphon.app import App
from antiphon.background import BackgroundTasks as BackgroundTasks
from antiphon.connection import WebSocket as WebSocket
from antiphon.datastructures import UploadFile as UploadFile
from antiphon.dependencies import Body as Body
from antiphon.dependencies import Cookie as Cookie
from antiphon.dependencies import Depends as Depends
from antiphon.dependencies import File as File
from antiphon.dependencies import Form as Form
from antiphon.dependencies import Header as Header
from antiphon.dependencies import Path as Path
from antiphon.dependencies import Query as Query
from antiphon.dependencies import Security as Security
from antiphon.exceptions import HTTPException as HTTPException
from antiphon.exceptions import WebSocketDisconnect as WebSocketDisconnect
from antiphon.exceptions import WebSocketException as WebSocketException
from antiphon.requests import Request as Request
from antiphon.responses import Response as Response
from antiphon.routing import APIRouter as APIRouter

FastAPI = App
