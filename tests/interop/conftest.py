"""Real daemons in the demo's laboratory. Each module has a laboratory of its own, each test its own daemons."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from support import faketime
from support.lab import configure, descendants

from kinkvpn.demo.lab import Lab
from kinkvpn.demo.sandbox import complete_path

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """For everything a module writes. Others may enter: some tests run daemons that are not root."""
    complete_path()
    before = descendants()
    with TemporaryDirectory(prefix="kinkvpn-interop-") as path:
        Path(path).chmod(0o755)
        yield Path(path)
    # Namespaces live as long as their processes, and devices as long as their namespaces.
    assert descendants() <= before
    assert not Path(path).exists()
    faketime.sweep()


@pytest.fixture(scope="module")
def laboratory() -> type[Lab]:
    """Of which kind; a module whose hosts have more than a wire between them says so."""
    return Lab


@pytest.fixture(scope="module")
def network(directory: Path, laboratory: type[Lab]) -> Iterator[Lab]:
    """Realm, KDC and two hosts on a wire; no daemons."""
    with laboratory(directory) as lab:
        lab.start_realm()
        lab.start_hosts()
        yield lab


@pytest.fixture
def lab(network: Lab) -> Iterator[Lab]:
    """The network with fresh configurations; daemons are killed at the end, and their logs shown if the test failed."""
    configure(network)
    for host in network.hosts:
        host.log.write_text("")
    try:
        yield network
    finally:
        for host in network.hosts:
            host.kill()
            print(f"--- host {host.name}\n{host.log.read_text()}")
