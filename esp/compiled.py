"""A compiled part of an installation: whether it is there, and if not, why (setup.py leaves its reason beside it)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def why_missing(extension: str, directory: Path) -> str | None:
    """Why ``extension`` cannot be used, in a line; None where it can.

    Args:
        extension: name of the module.
        directory: of the installed package that it is in.
    """
    try:
        import_module(extension)
    except ModuleNotFoundError as error:
        return _why_not_built(extension.rpartition(".")[2], directory) if error.name == extension else str(error)
    except ImportError as error:
        return f"built, and does not load: {error}"
    return None


def _why_not_built(name: str, directory: Path) -> str:
    try:
        reason = (directory / "missing.txt").read_text().strip()
    except OSError:
        others = ", ".join(sorted(path.name for path in directory.glob(f"{name}.*.so")))
        return f"not built for this Python (there is {others})" if others else "not built: nobody has, in this tree"
    return f"not built: {reason}, when kinkvpn was installed"
