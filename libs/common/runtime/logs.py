"""Logs: one JSON object a line on standard output, one line for each thing that happened."""

import logging
import sys
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# Until a service has configured it: what a command prints is its result, and not mixed with what is logged.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def configure(service: str, level: str) -> None:
    """Set up structlog, and lead the libraries' own warnings and errors into the same stream."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    root = logging.getLogger()
    root.handlers = [_IntoStructlog()]
    root.setLevel(logging.WARNING)
    # A broken connection is reported by our own reconnecting code; these repeat it with a traceback.
    for noisy in ("aiormq", "aio_pika", "aiohttp.server"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def logger(name: str) -> FilteringBoundLogger:
    """The logger of a module or part."""
    bound: FilteringBoundLogger = structlog.get_logger(part=name)
    return bound


def _dumps(value: Any, default: Callable[[Any], Any], **_: Any) -> bytes:
    def told(other: Any) -> Any:
        return str(other) if isinstance(other, UUID) else default(other)  # asyncpg's are not orjson's

    return orjson.dumps(value, default=told, option=orjson.OPT_NON_STR_KEYS)


class _IntoStructlog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        bound = structlog.get_logger(part=record.name)
        say = bound.error if record.levelno >= logging.ERROR else bound.warning
        say("library", said=record.getMessage(), exc_info=record.exc_info)
