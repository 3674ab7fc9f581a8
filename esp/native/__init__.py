"""The compiled engine: the twin of :mod:`esp.engine`, and a packet loop of its own.

It may be missing: :func:`why_missing` says why. Nothing else of the package can be imported then.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


def why_missing(directory: Path = HERE) -> str | None:
    """Why there is no compiled engine in this installation, in a line; None where there is one.

    Args:
        directory: of the installed package; setup.py leaves its reason there.
    """
    try:
        import_module("esp.native._core")
    except ModuleNotFoundError as error:
        return _why_not_built(directory) if error.name == "esp.native._core" else str(error)
    except ImportError as error:
        return f"built, and does not load: {error}"
    return None


def libraries() -> dict[str, str]:
    """The libraries of ciphers that are here and serve this processor: how they are asked for, and name and version.

    The one that is preferred where it has a suite comes first. Raises ImportError: see :func:`why_missing`.
    """
    from esp.native import _core

    numbers = {"ipsec-mb": _core.IPSEC_MB, "openssl": _core.OPENSSL}
    names = {name: _core.library_name(number) for name, number in numbers.items()}
    return {name: said for name, said in names.items() if said is not None}


def _why_not_built(directory: Path) -> str:
    try:
        reason = (directory / "missing.txt").read_text().strip()
    except OSError:
        others = ", ".join(sorted(path.name for path in directory.glob("_core.*.so")))
        return f"not built for this Python (there is {others})" if others else "not built: nobody has, in this tree"
    return f"not built: {reason}, when kinkvpn was installed"
