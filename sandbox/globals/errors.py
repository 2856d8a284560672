"""The errors that apps know by name, besides Python's own. Apps may raise, catch and extend them."""

from __future__ import annotations


class LimitExceeded(Exception):
    """An app asked for more than its limits allow."""


class RetryError(Exception):
    """What an app raises to have the hook called again later: a destination is away, or says that it is busy."""


class FetchError(Exception):
    """A request got no response: no connection, too slow, too large, or not allowed."""


def refused(message: str) -> FetchError:
    """A FetchError that another try would not help."""
    error = FetchError(message)
    error.__dict__["_refused"] = True  # no app can name it
    return error


def is_retryable(error: BaseException) -> bool:
    """Is a hook that failed of it worth another try?"""
    if isinstance(error, FetchError):
        return "_refused" not in error.__dict__
    return isinstance(error, RetryError)
