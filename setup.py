"""The compiled parts, where this machine can compile them: the engine, and lwIP for ``kinkvpn proxy``.

Without them the installation is whole: portable, and with a proxy for hosts with user namespaces. Everything else
about the project stands in pyproject.toml, and what a build can be told in docs/native.md.
"""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("esp/native")
LWIP = Path("kinkvpn/proxy/lwip")
REASON = "missing.txt"  # beside the package's modules: why there is no _core there, in a line

# ESP_SANITIZE=address,undefined instruments the extension; ESP_NO_CIPHER=1 leaves out what the packet loop is measured
# without: such a build protects nothing, says so, and is for the bench alone.
sanitize = os.environ.get("ESP_SANITIZE", "")
no_cipher = bool(os.environ.get("ESP_NO_CIPHER"))
# ESP_BUILD=native fails where it cannot compile, ESP_BUILD=portable does not try; otherwise no more than a warning.
wanted = os.environ.get("ESP_BUILD") or "auto"
# A directory with lwIP's sources, or "none"; otherwise they come from Debian, by apt, and are kept here.
lwip_directory = os.environ.get("KINKVPN_LWIP") or "build/lwip"
FETCH_SECONDS = 120

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
COMPILER = ("no C compiler (gcc)", "int nothing;\n")
PYTHON = ("no headers of Python (libpython3-dev)", "#include <Python.h>\n")
OPENSSL = (
    "no headers of OpenSSL 3 (libssl-dev)",
    "#include <openssl/opensslv.h>\nint three[OPENSSL_VERSION_MAJOR - 2];\n",
)


class Compiled(Extension):
    """One of the parts. ``needs`` as above; ``found`` completes it, or says why that cannot be."""

    needs: tuple[tuple[str, str], ...] = (COMPILER, PYTHON)

    def found(self) -> str:
        """Nothing is missing."""
        return ""


class Core(Compiled):
    """The engine."""

    needs = (COMPILER, PYTHON, OPENSSL)


class Lwip(Compiled):
    """The TCP/IP stack, of which Debian has the sources."""

    def found(self) -> str:
        """Get them."""
        if lwip_directory == "none":
            return "not wanted (KINKVPN_LWIP=none)"
        try:
            fetched = subprocess.run(  # noqa: S603 - a list of arguments, no shell
                [str(LWIP / "fetch"), lwip_directory], capture_output=True, text=True, timeout=FETCH_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"no sources of lwIP from Debian ({error})"
        core = Path(lwip_directory, "src/core")
        if fetched.returncode or not core.is_dir():
            said = fetched.stderr.split("\n")[-2:][0] or f"none in {lwip_directory}"
            return f"no sources of lwIP from Debian ({said})"
        self.sources += [str(core / f"{part}.c") for part in LWIP_PARTS]
        self.include_dirs.append(str(core.parent / "include"))
        return ""


class Build(build_ext):
    """Compiles each of them, or leaves the reason why not beside its modules, where they look for it."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.cython_c_in_temp = True  # Cython's, if it is there: what it writes is not for the source tree
        self.reasons: dict[str, str] = {}

    def run(self) -> None:
        super().run()
        for ext in self.extensions:
            package = Path(*ext.name.split(".")[:-1])
            beside = package if self.inplace else Path(self.build_lib, package)
            note = beside / REASON
            note.unlink(missing_ok=True)
            reason = self.reasons.get(ext.name, "")
            if reason and beside.is_dir():
                note.write_text(f"{reason}\n")
            if reason and self.inplace:
                # An older one does not go with the sources any more.
                Path(self.get_ext_filename(ext.name)).unlink(missing_ok=True)

    def build_extension(self, ext: Compiled) -> None:
        try:
            reason = self.obstacle(ext)
            if not reason:
                super().build_extension(ext)
                return
        except Exception as error:  # Cython's errors are of no class that setuptools knows
            reason = f"its sources do not compile ({error})".replace("\n", " ")
        self.reasons[ext.name] = reason
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        raise CompileError(reason)

    def obstacle(self, ext: Compiled) -> str:
        """What is missing on this machine, if anything; the compiler says more about it on stderr."""
        if wanted == "portable":
            return "not wanted (ESP_BUILD=portable)"
        if find_spec("Cython") is None:
            return "no Cython"
        with TemporaryDirectory() as scratch:
            source = Path(scratch, "need.c")
            for reason, text in ext.needs:
                source.write_text(text)
                try:
                    self.compiler.compile([str(source)], output_dir=scratch, extra_postargs=flags)
                except CompileError:
                    return reason
        return ext.found()


core = Core(
    "esp.native._core",
    sources=[str(NATIVE / "_core.pyx"), *sorted(map(str, NATIVE.glob("*.c")))],
    depends=["setup.py", *(str(path) for kind in ("*.h", "*.pxi") for path in sorted(NATIVE.glob(kind)))],
    include_dirs=[str(NATIVE)],
    libraries=["crypto"],
    extra_compile_args=flags,
    extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
    optional=wanted != "native",
)

LWIP_PARTS = (
    *(
        "def",
        "inet_chksum",
        "init",
        "ip",
        "mem",
        "memp",
        "netif",
        "pbuf",
        "tcp",
        "tcp_in",
        "tcp_out",
        "timeouts",
        "udp",
    ),
    *(f"ipv4/{part}" for part in ("icmp", "ip4", "ip4_addr", "ip4_frag")),
    *(f"ipv6/{part}" for part in ("icmp6", "inet6", "ip6", "ip6_addr", "ip6_frag", "nd6")),
)
lwip = Lwip(
    "kinkvpn.proxy.lwip._stack",
    sources=[str(LWIP / "_stack.pyx"), *sorted(map(str, LWIP.glob("*.c")))],
    depends=["setup.py", str(LWIP / "fetch"), *map(str, sorted(LWIP.rglob("*.h")))],
    include_dirs=[str(LWIP)],
    extra_compile_args=[*flags, "-Wno-address", "-Wno-unused-variable"],
    extra_link_args=[f"-fsanitize={sanitize}"] if sanitize else [],
    optional=True,
)

# What was compiled with other flags is not up to date, whatever its time says.
variant = "-".join(["build", *sanitize.split(","), *["no-cipher"] * no_cipher]).rstrip("-")

setup(ext_modules=[core, lwip], cmdclass={"build_ext": Build}, options={"build": {"build_base": variant}})
