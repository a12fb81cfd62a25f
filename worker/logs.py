"""How log records become lines: text for people, or JSON lines."""

from __future__ import annotations

import logging
import time
from typing import TextIO

import msgspec

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_QUIET = ("asyncio",)  # its INFO is our DEBUG
_MUTE = ("kafka",)  # dozens of lines while a broker is away; what comes of them is one line, or an error, of ours


class TextLines(logging.Formatter):
    """One line a record, times in UTC; what comes from outside breaks no line and moves no cursor."""

    converter = staticmethod(time.gmtime)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The record as one line."""
        return "".join(char if char.isprintable() else "?" for char in super().formatMessage(record))


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, the `extra` fields, a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure(level: str, form: str, stream: TextIO) -> None:
    """Sends all log records of at least `level` to `stream`, as "text" or "json" lines; times in UTC."""
    handler = logging.StreamHandler(stream)
    if form == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(TextLines(_TEXT, datefmt="%Y-%m-%dT%H:%M:%SZ"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    for name in _MUTE:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "DEBUG" else logging.CRITICAL)
