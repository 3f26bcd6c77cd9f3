"""The daemon's log: structured, on standard error."""

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog


def configure_logs(log_format: str, level: str) -> None:
    """Sets up structlog; call once, before anything logs."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.StackInfoRenderer(),
            *([structlog.processors.format_exc_info] if log_format == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )


class _StandardError:
    """A log that cannot be written, as on a full disk, ends no call and no operation."""

    def write(self, text: str) -> None:
        """Writes it, if that can be."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """As write."""
        with contextlib.suppress(OSError):
            sys.stderr.flush()
