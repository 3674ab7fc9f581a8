"""The compiled engine, where this machine can compile it; without it the installation is whole, and portable.

Everything else about the project stands in pyproject.toml.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("esp/native")

# ESP_SANITIZE=address,undefined instruments the extension; ESP_NO_CIPHER=1 leaves out what the packet loop is measured
# without: such a build protects nothing, says so, and is for the bench alone.
sanitize = os.environ.get("ESP_SANITIZE", "")
flags = [
    "-std=gnu11",
    "-O3",
    "-g",
    "-fno-strict-aliasing",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
]
if sanitize:
    flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
if os.environ.get("ESP_NO_CIPHER"):
    flags.append("-DESP_NO_CIPHER")


def extensions() -> list[Extension]:
    """The one there is, or none where Cython is missing."""
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    core = Extension(
        "esp.native._core",
        sources=[str(NATIVE / "_core.pyx"), *sorted(map(str, NATIVE.glob("*.c")))],
        depends=[*map(str, NATIVE.glob("*.h")), *map(str, NATIVE.glob("*.pxi"))],
        libraries=["crypto"],
        extra_compile_args=flags,
        extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
        optional=True,  # no compiler, no headers: a warning, and the portable engine
    )
    core.sources = [source for source in core.sources if not source.endswith("_core.c")]
    return cythonize([core], language_level=3, build_dir="build")


setup(ext_modules=extensions())
