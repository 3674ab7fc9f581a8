"""lwIP as the proxy's stack, compiled at installation from Debian's sources.

It may be missing: :func:`why_missing` says why. Nothing else of the package can be imported then.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


def why_missing(directory: Path = HERE) -> str | None:
    """Why there is no lwIP in this installation, in a line; None where there is.

    Args:
        directory: of the installed package; setup.py leaves its reason there.
    """
    try:
        import_module("kinkvpn.proxy.lwip._stack")
    except ModuleNotFoundError:
        try:
            return f"not built: {(directory / 'missing.txt').read_text().strip()}, when kinkvpn was installed"
        except OSError:
            return "not built: nobody has, in this tree"
    except ImportError as error:
        return f"built, and does not load: {error}"
    return None
