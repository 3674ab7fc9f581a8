"""The compiled engine: the twin of :mod:`esp.engine`, and a packet loop of its own.

It may be missing: :func:`why_missing` says why. Nothing else of the package can be imported then.
"""

from __future__ import annotations


def why_missing() -> str | None:
    """Why there is no compiled engine in this installation; None where there is one."""
    try:
        from esp.native import _core  # noqa: F401
    except ImportError as error:
        return str(error)
    return None
