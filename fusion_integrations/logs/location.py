"""Read where a log store lies, and name it in messages and results without its password."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, exc, make_url

from fusion_integrations.errors import LogStoreError

__all__ = ["parse_location", "store_label"]

_BACKENDS = ("sqlite", "postgresql")


def store_label(location: str | Path) -> str:
    """Name a store for people.

    Args:
        location: Path, URL, or `":memory:"`.

    Returns:
        The path; or the URL with its password, also one among the options, hidden.

    Raises:
        LogStoreError: If it is a URL that cannot be parsed.
    """
    if isinstance(location, Path) or "://" not in location:
        return str(location)
    return _label(_parsed(location))


def parse_location(location: str | Path) -> URL | str:
    """Tell a server's URL from the path of a file.

    Args:
        location: Path, URL, or `":memory:"`.

    Returns:
        The URL of a PostgreSQL server, or the path for SQLite.

    Raises:
        LogStoreError: If it is a URL that cannot be parsed, of another kind of database, or of SQLite with
            options.
    """
    text = str(location)
    if isinstance(location, Path) or "://" not in text:
        return text
    url = _parsed(text)
    backend = url.get_backend_name()
    if backend not in _BACKENDS:
        message = f"A log store cannot live in '{backend}'. Known: {', '.join(_BACKENDS)}."
        raise LogStoreError(message)
    if backend == "postgresql":
        return url
    if url.query:
        message = f"Log store URL '{_label(url)}' has options, SQLite stores take none. Pass the path alone."
        raise LogStoreError(message)
    return url.database or ":memory:"


def _parsed(text: str) -> URL:
    try:
        return make_url(text)
    except (exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        message = (
            "The log store URL cannot be parsed. Write it as sqlite:///PATH or postgresql://HOST/DATABASE."
        )
        raise LogStoreError(message) from None  # the cause repeats the URL, with its password


def _label(url: URL) -> str:
    secret = [name for name in url.query if "pass" in name.lower()]
    return url.update_query_dict(dict.fromkeys(secret, "hidden")).render_as_string(hide_password=True)
