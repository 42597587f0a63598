"""The logging filter that keeps secrets out of the logs of servers that are not ours."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from antiphon.masking import masked, plain_name

_FORMATTER = logging.Formatter()


class SecretFilter(logging.Filter):
    """Writes `***` for secrets in each record that passes. It drops none.

    Masked are the values of query parameters such as `token`, `ticket`, `access_token`, `key`, `api_key`, `password`
    and `secret`. So are `Authorization`, cookies, tokens among subprotocols, and everything in the form of a JWT.
    `names` are further parameters. Put it on handlers, so that it sees the lines of all loggers:

        handler.addFilter(SecretFilter(["invite"]))

    In a `dictConfig`: `"filters": {"secrets": {"()": "antiphon.gate.SecretFilter", "names": ["invite"]}}`, and
    `"filters": ["secrets"]` of each handler. Raises TypeError for names that are no strings.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        super().__init__()
        if isinstance(names, str):
            raise TypeError(f"SecretFilter takes a list of names: write [{names!r}]")
        names = list(names)
        if not all(isinstance(name, str) and name for name in names):
            raise TypeError(f"SecretFilter takes the names of parameters, each a str, not {names!r}")
        self.names: frozenset[str] = frozenset(plain_name(name) for name in names)
        """The further parameters, as they are compared."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask, and let pass."""
        try:
            said = record.getMessage()
        except Exception:  # arguments that do not fit: the handler says so
            return True
        shown = masked(said, self.names)
        if shown != said:
            self._rewrite(record, shown)
        if record.exc_info and record.exc_text is None:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = masked(record.exc_text, self.names)
        return True

    def _rewrite(self, record: logging.LogRecord, shown: str) -> None:
        """Argument by argument where that suffices: formatters of access lines ask for them."""
        args = record.args
        if isinstance(args, tuple):
            record.args = tuple(masked(one, self.names) if isinstance(one, str) else one for one in args)
            if record.getMessage() == shown:
                return
        record.msg, record.args = shown, ()
