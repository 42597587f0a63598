"""An HTTP response instead of an open connection (ASGI extension `websocket.http.response`). Knows bytes only."""

from __future__ import annotations

from antiphon.wire.handshake import refuse_response


class Denial:
    """An HTTP response on its way: its head leaves with the first part of the body."""

    __slots__ = ("head",)

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Raises ValueError for headers that HTTP does not allow."""
        headers = [header for header in headers if header[0].lower() != b"transfer-encoding"]  # framing is ours
        refuse_response(status, headers)
        self.head: tuple[int, list[tuple[bytes, bytes]]] | None = (status, headers)

    def chunk(self, body: bytes, more: bool) -> bytes:
        """The bytes for one more part. A body of unknown length ends with the connection (RFC 9112 §6.3)."""
        if self.head is None:
            return body
        (status, headers), self.head = self.head, None
        names = {name.lower() for name, _ in headers}
        if not more or b"content-length" in names:
            return refuse_response(status, headers, body, content_type=b"text/plain; charset=utf-8")
        whole = refuse_response(status, [*headers, (b"content-length", b"0")], b"")
        return whole.replace(b"\r\ncontent-length: 0", b"", 1) + body
