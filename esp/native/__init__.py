"""The compiled engine: the twin of :mod:`esp.engine`, and a packet loop of its own.

It may be missing: :func:`why_missing` says why. Nothing else of the package can be imported then.
"""

from __future__ import annotations

from pathlib import Path

from esp import compiled

HERE = Path(__file__).parent


def why_missing(directory: Path = HERE) -> str | None:
    """Why there is no compiled engine in this installation, in a line; None where there is one.

    Args:
        directory: of the installed package; setup.py leaves its reason there.
    """
    return compiled.why_missing("esp.native._core", directory)


def libraries() -> dict[str, str]:
    """The libraries of ciphers that are here and serve this processor: how they are asked for, and name and version.

    The one that is preferred where it has a suite comes first. Raises ImportError: see :func:`why_missing`.
    """
    from esp.native import _core

    numbers = {"ipsec-mb": _core.IPSEC_MB, "openssl": _core.OPENSSL}
    names = {name: _core.library_name(number) for name, number in numbers.items()}
    return {name: said for name, said in names.items() if said is not None}
