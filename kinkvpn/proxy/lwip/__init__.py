"""lwIP as the proxy's stack, compiled at installation from Debian's sources.

It may be missing: :func:`why_missing` says why. Nothing else of the package can be imported then.
"""

from __future__ import annotations

from pathlib import Path

from esp import compiled

HERE = Path(__file__).parent


def why_missing(directory: Path = HERE) -> str | None:
    """Why there is no lwIP in this installation, in a line; None where there is.

    Args:
        directory: of the installed package; setup.py leaves its reason there.
    """
    return compiled.why_missing("kinkvpn.proxy.lwip._stack", directory)
