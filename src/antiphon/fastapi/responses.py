"""FastAPI's module of this name."""

from antiphon.responses import FileResponse as FileResponse
from antiphon.responses import HTMLResponse as HTMLResponse
from antiphon.responses import JSONResponse as JSONResponse
from antiphon.responses import PlainTextResponse as PlainTextResponse
from antiphon.responses import RedirectResponse as RedirectResponse
from antiphon.responses import Response as Response
from antiphon.responses import StreamingResponse as StreamingResponse
