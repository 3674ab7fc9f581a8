"""Arrows point down: no module imports one of a higher layer, and the pure layers import nothing that acts."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Bottom to top; a module may import its own layer and those below. A name stands for the module or the whole package.
LAYERS = {
    "esp": (
        {"esp.errors", "esp.offload", "esp.compiled"},
        {"esp.wire", "esp.inner", "esp.seqnum", "esp.suite", "esp.headers", "esp.aggfrag"},
        {"esp.combined", "esp.separate", "esp.integrity"},
        {"esp.policy", "esp.sa", "esp.datagram", "esp.crypto", "esp.events", "esp.tunnel", "esp.checksum", "esp.pace"},
        {
            "esp.transport",
            "esp.flow_label",
            "esp.mtu",
            "esp.fragmentation",
            "esp.too_big",
            "esp.mss",
            "esp.fragment_flows",
            "esp.ah",
            "esp.segment",
            "esp.coalesce",
            "esp.shape",
        },
        {"esp.silence"},
        {"esp.path", "esp.fit", "esp.spd", "esp.hold", "esp.silences"},
        {"esp.lifetime", "esp.outbound", "esp.inbound", "esp.loss", "esp.sad", "esp.statistics", "esp.keepalive"},
        {"esp.accounts"},
        {"esp.engine"},
        {"esp.icmp"},
        {"esp.readiness"},
        {"esp.tun", "esp.veth", "esp.link", "esp.raw"},
        {"esp.dataplane", "esp.testing"},
        {"esp.native"},  # the compiled engine and its dataplane
    ),
    "kinkvpn": (
        {"kinkvpn.errors", "kinkvpn.terminal"},
        {"kinkvpn.wire"},
        {"kinkvpn.proto"},
        {"kinkvpn.kerberos", "kinkvpn.key_exchange"},
        {
            "kinkvpn.values",
            "kinkvpn.document",
            "kinkvpn.options",
            "kinkvpn.traffic",
            "kinkvpn.admission",
            "kinkvpn.config",
            "kinkvpn.keylog",
        },
        {"kinkvpn.api", "kinkvpn.latency", "kinkvpn.metrics", "kinkvpn.web"},
        {"kinkvpn.service"},
        {"kinkvpn.people"},
        {"kinkvpn.rootless"},
        {"kinkvpn.proxy"},
        {"kinkvpn.demo", "kinkvpn.decode", "kinkvpn.manual", "kinkvpn.view", "kinkvpn.prospect", "kinkvpn.doctor"},
        {"kinkvpn.listing", "kinkvpn.top"},
        {"kinkvpn.commands"},
        {"kinkvpn.cli", "kinkvpn.__main__"},
    ),
}
# What each layer of kinkvpn may know of esp. The pure descriptions (what a suite, a selector, an SA is) are one
# vocabulary for both planes; only service touches what moves packets.
DESCRIPTIONS = {
    *("esp.suite", "esp.policy", "esp.sa", "esp.headers", "esp.events", "esp.errors", "esp.mtu", "esp.offload"),
}
ACROSS = {
    "kinkvpn.proto": DESCRIPTIONS,
    "kinkvpn.values": DESCRIPTIONS,
    "kinkvpn.document": DESCRIPTIONS,
    "kinkvpn.options": DESCRIPTIONS,
    "kinkvpn.config": DESCRIPTIONS,
    "kinkvpn.traffic": DESCRIPTIONS,
    "kinkvpn.admission": DESCRIPTIONS,
    "kinkvpn.people": DESCRIPTIONS | {"esp.wire"},
    "kinkvpn.demo": DESCRIPTIONS,
    "kinkvpn.doctor": DESCRIPTIONS,
    "kinkvpn.commands": DESCRIPTIONS,
    "kinkvpn.keylog": DESCRIPTIONS,
    "kinkvpn.manual": DESCRIPTIONS | {"esp.engine", "esp.dataplane", "esp.statistics"},
    "kinkvpn.view": DESCRIPTIONS,
    "kinkvpn.prospect": DESCRIPTIONS,
    "kinkvpn.metrics": DESCRIPTIONS,
    "kinkvpn.proxy": DESCRIPTIONS | {"esp.tun", "esp.compiled"},
    "kinkvpn.rootless": DESCRIPTIONS | {"esp.tun", "esp.veth"},
    "kinkvpn.service": DESCRIPTIONS
    | {
        "esp.engine",
        "esp.statistics",
        "esp.dataplane",
        "esp.tun",
        "esp.veth",
        "esp.link",
        "esp.readiness",
        "esp.raw",
        "esp.icmp",
        "esp.fit",
        "esp.native",
    },
}
PURE = {
    *("esp.combined", "esp.separate", "esp.integrity"),
    *("esp.errors", "esp.wire", "esp.inner", "esp.seqnum", "esp.suite", "esp.sa", "esp.sad", "esp.policy", "esp.spd"),
    *("esp.lifetime", "esp.outbound", "esp.inbound", "esp.loss", "esp.statistics"),
    *(
        "esp.mtu",
        "esp.fragmentation",
        "esp.fragment_flows",
        "esp.too_big",
        "esp.mss",
        "esp.offload",
        "esp.segment",
        "esp.coalesce",
        "esp.shape",
        "esp.keepalive",
        "esp.path",
        "esp.fit",
        "esp.crypto",
        "esp.events",
        "esp.hold",
        "esp.silence",
        "esp.silences",
        "esp.datagram",
        "esp.headers",
        "esp.flow_label",
        "esp.tunnel",
        "esp.checksum",
        "esp.transport",
        "esp.ah",
        "kinkvpn.errors",
        "kinkvpn.wire",
        "kinkvpn.proto",
    ),
}
ACTING = {"trio", "socket", "time", "os", "random", "secrets", "logging"}

SOURCES = sorted(path.relative_to(ROOT) for package in LAYERS for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Every module that ``source`` imports, for type checking or in a function too; relative names resolved."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # "from kinkvpn import values" names a module where it names one, else the package that the name is in.
            found |= {f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base for alias in node.names}
    return found


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room_of(module: str) -> str:
    """The entry of a module in LAYERS: its first two names."""
    return ".".join(module.split(".")[:2])


def height(module: str) -> int:
    layers = LAYERS[module.split(".")[0]]
    heights = [number for number, layer in enumerate(layers) if room_of(module) in layer]
    assert len(heights) == 1, f"{room_of(module)} needs a place in LAYERS"
    return heights[0]


def offences(module: str, imports: set[str]) -> list[str]:
    """Why each import that may not be may not be."""
    package = module.split(".")[0]
    found = []
    for imported in sorted(imports):
        top = imported.split(".")[0]
        if top in LAYERS and imported == top:
            continue  # the package itself: its version, nothing else is in there
        if top == package and height(imported) > height(module):
            found.append(f"{module} -> {imported} points up")
        elif top == "kinkvpn" and package == "esp":
            found.append(f"{module} -> {imported}: esp knows nothing of kinkvpn")
        elif top == "esp" and package == "kinkvpn" and room_of(imported) not in ACROSS.get(room_of(module), set()):
            found.append(f"{module} -> {imported}: not a matter of {room_of(module)}")
        elif room_of(module) in PURE and top in ACTING:
            found.append(f"{module} -> {imported}: the layer is pure")
    return found


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module imports."""
    return {
        module_of(path): imports_of((ROOT / path).read_text(), module_of(path), is_package=path.name == "__init__.py")
        for path in SOURCES
    }


def test_every_import_points_down(imports: dict[str, set[str]]) -> None:
    found = [each for module in imports.keys() - LAYERS.keys() for each in offences(module, imports[module])]
    assert sorted(found) == []


def test_the_packages_themselves_import_nothing(imports: dict[str, set[str]]) -> None:
    """Whoever imports anything of one imports this first."""
    assert {module: imports[module] - {"__future__"} for module in LAYERS} == {module: set() for module in LAYERS}


# Shipped for simulations and tests; a daemon that ran on one of them would protect nothing.
FAKES = {"kinkvpn.kerberos.fake", "esp.testing"}


def test_no_shipped_module_runs_on_a_fake(imports: dict[str, set[str]]) -> None:
    assert [module for module in sorted(imports.keys() - FAKES) if imports[module] & FAKES] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("esp.wire", "from esp.engine import Engine"),
        ("esp.dataplane", "def late():\n    from kinkvpn.service import daemon"),
        ("esp.sad", "import time"),
        ("esp.policy", "if True:\n    import os.path"),
        ("kinkvpn.wire.kink", "from kinkvpn.proto.ports import Kerberos"),
        ("kinkvpn.proto.peer", "from secrets import token_bytes"),
        ("kinkvpn.proto.peer", "from esp.engine import Engine"),
        ("kinkvpn.proto.peer", "from ..service import daemon"),
        ("kinkvpn.proto.peer", "from kinkvpn import config"),
        ("kinkvpn.kerberos.session", "from esp.suite import Suite"),
        ("kinkvpn.service.daemon", "from kinkvpn.cli import main"),
        ("kinkvpn.demo.lab", "from esp.engine import Engine"),
    ],
)
def test_an_arrow_that_points_up_is_found(module: str, source: str) -> None:
    assert len(offences(module, imports_of(source, module))) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("esp.outbound", "from esp.crypto import make_sealer"),
        ("kinkvpn.proto.proposal", "from esp.suite import SUITES"),
        ("kinkvpn.proto.peer", "from kinkvpn.wire import kink"),
        ("kinkvpn.config", "from kinkvpn import values"),
        ("kinkvpn.service.daemon", "import trio\nfrom esp.dataplane import Dataplane"),
        ("kinkvpn.cli", "from kinkvpn import __version__"),
    ],
)
def test_an_arrow_that_points_down_is_not(module: str, source: str) -> None:
    assert offences(module, imports_of(source, module)) == []
