"""FastAPI's module of this name, which antiphon does not have."""

raise ImportError(
    "antiphon has no server-sent events: return a StreamingResponse, or keep these routes in a FastAPI app and mount it"
    " (docs/porting.md)"
)
