"""The compiled engine, where this machine can compile it; without it the installation is whole, and portable.

Everything else about the project stands in pyproject.toml, and what a build can be told in docs/native.md.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("esp/native")
REASON = "missing.txt"  # beside the package's modules: why there is no _core there, in a line

# ESP_SANITIZE=address,undefined instruments the extension; ESP_NO_CIPHER=1 leaves out what the packet loop is measured
# without: such a build protects nothing, says so, and is for the bench alone.
sanitize = os.environ.get("ESP_SANITIZE", "")
no_cipher = bool(os.environ.get("ESP_NO_CIPHER"))
# ESP_BUILD=native fails where it cannot compile, ESP_BUILD=portable does not try; otherwise no more than a warning.
wanted = os.environ.get("ESP_BUILD") or "auto"

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
if sanitize == "thread":
    flags.append("-Wno-tsan")  # it does not look at fences, and what they order here it sees by the atomics beside them
if no_cipher:
    flags.append("-DESP_NO_CIPHER")

# What compiling takes, and the least that shows whether it is there; Debian's packages in brackets.
NEEDS = (
    ("no C compiler (gcc)", "int nothing;\n"),
    ("no headers of Python (libpython3-dev)", "#include <Python.h>\n"),
    ("no headers of OpenSSL 3 (libssl-dev)", "#include <openssl/opensslv.h>\nint three[OPENSSL_VERSION_MAJOR - 2];\n"),
)


class Build(build_ext):
    """Compiles the extension, or leaves the reason why not where :func:`esp.native.why_missing` finds it."""

    reason = ""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.cython_c_in_temp = True  # Cython's, if it is there: what it writes is not for the source tree

    def run(self) -> None:
        super().run()
        beside = NATIVE if self.inplace else Path(self.build_lib, NATIVE)
        note = beside / REASON
        note.unlink(missing_ok=True)
        if self.reason and beside.is_dir():
            note.write_text(f"{self.reason}\n")
        if self.reason and self.inplace:
            # An older one does not go with the sources any more.
            (NATIVE / Path(self.get_ext_filename("_core"))).unlink(missing_ok=True)

    def build_extension(self, ext: Extension) -> None:
        try:
            self.reason = self.obstacle()
            if not self.reason:
                super().build_extension(ext)
                return
        except Exception as error:  # Cython's errors are of no class that setuptools knows
            self.reason = f"its sources do not compile ({error})".replace("\n", " ")
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        raise CompileError(self.reason)

    def obstacle(self) -> str:
        """What is missing on this machine, if anything; the compiler says more about it on stderr."""
        if wanted == "portable":
            return "not wanted (ESP_BUILD=portable)"
        if find_spec("Cython") is None:
            return "no Cython"
        with TemporaryDirectory() as scratch:
            source = Path(scratch, "need.c")
            for reason, text in NEEDS:
                source.write_text(text)
                try:
                    self.compiler.compile([str(source)], output_dir=scratch, extra_postargs=flags)
                except CompileError:
                    return reason
        return ""


core = Extension(
    "esp.native._core",
    sources=[str(NATIVE / "_core.pyx"), *sorted(map(str, NATIVE.glob("*.c")))],
    depends=["setup.py", *(str(path) for kind in ("*.h", "*.pxi") for path in sorted(NATIVE.glob(kind)))],
    include_dirs=[str(NATIVE)],
    libraries=["crypto"],
    extra_compile_args=flags,
    extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
    optional=wanted != "native",
)

# What was compiled with other flags is not up to date, whatever its time says.
variant = "-".join(["build", *sanitize.split(","), *["no-cipher"] * no_cipher]).rstrip("-")

setup(ext_modules=[core], cmdclass={"build_ext": Build}, options={"build": {"build_base": variant}})
