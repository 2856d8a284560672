"""Sets up structlog: JSON lines, or coloured text on a terminal. Other libraries' logs take the same way."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

import structlog
from aiohttp import http_exceptions, web

from plugin_server.settings import LogFormat, LogLevel

_REPEAT_SECONDS: Final = 30.0


class OncePerWhile(logging.Filter):
    """Lets each message of a library through once in 30 s: aiokafka writes some 60 lines a second while a broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """By the line that logs it: there are as many as the library has such lines."""
        key, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._last.get(key, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return False
        self._last[key] = now
        return True


class ClientFaults(logging.Filter):
    """One line in 30 s, without a traceback, for clients that send what is not HTTP.

    aiohttp logs an error for each, whose text quotes the request: a malformed header may be `Authorization`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._repeats = OncePerWhile()

    def filter(self, record: logging.LogRecord) -> bool:
        """Only what aiohttp says of a client's fault is changed."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, http_exceptions.HttpProcessingError | web.RequestPayloadError):
            return True
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = f"a client sent a request that is not HTTP ({type(error).__name__}): refused", ()
        record.exc_info = record.exc_text = None
        return self._repeats.filter(record)


def set_up_logging(level: LogLevel, log_format: LogFormat) -> None:
    """Log to standard error from now on."""
    number = logging.getLevelNamesMapping()[level.upper()]
    pretty = log_format is LogFormat.PRETTY or (log_format is LogFormat.AUTO and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        ),
    )
    logging.getLogger("aiohttp.server").filters[:] = [ClientFaults()]
    repeats = OncePerWhile()
    handler.addFilter(lambda record: not record.name.startswith("aiokafka") or repeats.filter(record))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger("plugin_server").setLevel(number)
