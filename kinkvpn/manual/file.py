"""A file of manual SAs: TOML in, pairs of SAs out, every error at once with its key and line, and no key in any."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from esp.errors import EspError
from esp.headers import DEFAULT_RULES
from esp.policy import ANY_PORT, ANY_PROTOCOL, Selector, check_selector
from esp.sa import (
    EXTENDED_SEQUENCE_MAX,
    REPLAY_WINDOW_MAX,
    SPI_MAX,
    SPI_MIN,
    Encapsulation,
    Endpoint,
    Lifetime,
    Mode,
    SaParameters,
    SecurityProtocol,
    check_parameters,
)
from esp.suite import GRAMMAR, SUITES, Suite
from kinkvpn import values
from kinkvpn.config import ESP_PORT, EngineSettings, TunSettings, read_engine, read_offload, read_tun
from kinkvpn.document import Document, DocumentError, Problem, Table, Unexpected, read_file
from kinkvpn.manual.pair import Pair
from kinkvpn.options import read_headers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esp.offload import Offloads
    from esp.policy import Network

# The parts of KEYMAT, in its order (RFC 4430 §7, RFC 4106 §8.1), where somebody has them one by one.
PARTS = ("encryption_key", "salt", "integrity_key")

MAXIMUM_LIFETIME = 1 << 62  # of every unit: a limit that somebody writes down is a limit


@dataclass(frozen=True, slots=True)
class ManualFile:
    """What a file says.

    Args:
        listen: addresses; of several of one family the wildcard is bound.
        port: UDP, at this end.
        engine: as the daemon has it.
        tun: the device.
        offload: what may be used.
        pairs: in order.
    """

    listen: tuple[str, ...]
    port: int
    engine: EngineSettings
    tun: TunSettings
    offload: Offloads
    pairs: tuple[Pair, ...]


def load(path: Path) -> ManualFile:
    """Read the file at ``path``.

    Raises:
        DocumentError: others may read or change it, it cannot be read, or it is wrong; every problem at once.
    """
    text = read_file(path, "file of SAs", lambda descriptor: _check_private(path, os.fstat(descriptor)))
    return parse(text, path)


def _check_private(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        text = f"it has keys in it, and others may open it (mode {mode:04o}): chmod 600 {path}"
        raise DocumentError(str(path), [Problem(0, text)])
    if status.st_uid not in (0, os.geteuid()):
        text = f"it has keys in it, and belongs to user {status.st_uid}: chown {os.geteuid()} {path}"
        raise DocumentError(str(path), [Problem(0, text)])


def parse(text: str, source: Path) -> ManualFile:
    """Validate ``text``.

    Raises:
        DocumentError: every problem at once.
    """
    document = Document.parse(text, str(source))
    root = Table(document, (), document.root, secret=True)
    esp = root.table("esp")
    listen = esp.items("listen", values.ip_address, ("0.0.0.0", "::"))  # noqa: S104 # as the daemon does
    port = esp.get("port", values.port, ESP_PORT)
    engine = read_engine(esp)
    esp.close()
    tun, offload = read_tun(root.table("tun")), read_offload(root.table("offload"))
    manual = ManualFile(listen, port, engine, tun, offload, _pairs(root, port))
    root.close()
    document.raise_problems()
    return manual


def _pairs(root: Table, port: int) -> tuple[Pair, ...]:
    entries = root.tables("policy")
    if "policy" not in root:
        root.report("policy is missing: expected at least one [[policy]]")
    pairs: list[Pair] = []
    for number, entry in enumerate(entries, 1):
        pair = _pair(entry, f"policy{number}", port)
        if entry.sound:
            _check_apart(entry, pair, pairs)
            pairs.append(pair)
    return tuple(pairs)


def _check_apart(entry: Table, pair: Pair, others: list[Pair]) -> None:
    """Names of policies and SPIs that we choose are ours alone (RFC 4303 §2.1)."""
    for other in others:
        if other.outbound.policy == pair.outbound.policy:
            entry.report_value(("name",), pair.outbound.policy, "a name of its own")
        if other.inbound.spi == pair.inbound.spi:
            entry.report(f"{entry.name}.inbound.spi: expected one that no other [[policy]] has", ("inbound", "spi"))


def _pair(entry: Table, name: str, port: int) -> Pair:
    name = entry.get("name", values.label, name)
    selector = _selector(entry)
    ipsec = entry.get("ipsec", values.one_of(SecurityProtocol), SecurityProtocol.ESP)
    ah = ipsec is SecurityProtocol.AH
    usual = Encapsulation.RAW if ah else Encapsulation.UDP
    encapsulation = entry.get("encapsulation", values.one_of(Encapsulation), usual)
    raw = encapsulation is Encapsulation.RAW
    source = entry.require("source", values.ip_address, "::", "this host's outer address")
    destination = entry.require("destination", values.ip_address, "::", "the other host's outer address")
    there = entry.get("destination_port", values.port, ESP_PORT)
    if (":" in source) != (":" in destination) and entry.sound:
        entry.report_value(("destination",), destination, "an address of the same family as source")
    shape = SaParameters(
        spi=SPI_MIN,
        suite=entry.require("suite", values.suite, SUITES["aes256-gcm16"], f"a suite: {GRAMMAR}"),
        keymat=b"",
        policy=name,
        selector=selector,
        remote=Endpoint(destination, 0 if raw else there),
        lifetime=_lifetime(entry),
        mode=entry.get("mode", values.one_of(Mode), Mode.TUNNEL),
        encapsulation=encapsulation,
        replay_window=entry.get("replay_window", values.integer(0, REPLAY_WINDOW_MAX), 8192),
        esn=entry.get("esn", values.boolean, default=False),
        headers=read_headers(entry, DEFAULT_RULES),
        legacy=entry.get("legacy", values.boolean, default=False),
        protocol=ipsec,
        local=source if ah else "",
    )
    pair = Pair(Endpoint(source, 0 if raw else port), _sa(entry, "outbound", shape), _sa(entry, "inbound", shape))
    entry.close()
    return pair


def _selector(entry: Table) -> Selector:
    expected = "a subnet, such as 10.1.0.0/24"
    nothing: Network = values.network("::/128")
    selector = Selector(
        entry.require("local", values.network, nothing, expected),
        entry.require("remote", values.network, nothing, expected),
        entry.get("protocol", values.protocol, ANY_PROTOCOL),
        entry.get("local_port", values.port, ANY_PORT),
        entry.get("remote_port", values.port, ANY_PORT),
    )
    if entry.sound:
        _report_misuse(entry, lambda: check_selector(selector))
    return selector


def _lifetime(entry: Table) -> Lifetime:
    """Hard limits alone: nobody is there who could make a new pair."""
    limit = values.integer(1, MAXIMUM_LIFETIME)
    kilobytes = entry.get("lifetime_kilobytes", limit, 0)
    return Lifetime(
        hard_seconds=entry.get("lifetime", limit, 0) or None,
        hard_packets=entry.get("lifetime_packets", limit, 0) or None,
        hard_octets=kilobytes * 1024 or None,
    )


def _sa(entry: Table, direction: str, shape: SaParameters) -> SaParameters:
    """The table of one direction: what its SA has that the other has not."""
    if direction not in entry:
        entry.report(f"{entry.name}.{direction} is missing: expected [policy.{direction}] with spi and keymat")
        entry.table(direction)
        return shape
    table = entry.table(direction)
    spi = table.require("spi", values.integer(SPI_MIN, SPI_MAX), SPI_MIN, f"an integer from {SPI_MIN} to {SPI_MAX}")
    keymat = _keymat(table, shape.suite)
    sequence = 0
    if direction == "outbound":
        sequence = table.get("sequence", values.integer(0, EXTENDED_SEQUENCE_MAX), 0)
    table.close()
    sa = replace(shape, spi=spi, keymat=keymat, sequence=sequence)
    if table.sound and entry.sound:
        _report_misuse(table, lambda: check_parameters(sa))
    entry.sound &= table.sound
    return sa


def _report_misuse(table: Table, check: Callable[[], object]) -> None:
    """What the engine itself would refuse, as a problem of the table."""
    try:
        check()
    except EspError as error:
        table.report(f"{table.name}: {error}")


def _keymat(table: Table, suite: Suite) -> bytes:
    """``keymat``, or its parts: hexadecimal."""
    lengths = dict(zip(PARTS, (suite.encryption_octets, suite.salt_octets, suite.integrity_octets), strict=True))
    parts = [_octets(table, part, octets, suite) for part, octets in lengths.items()]
    if "keymat" in table:
        for part in PARTS:
            if part in table:
                table.report(f"{table.name}.{part}: expected keymat or its parts, not both", (part,))
        return _octets(table, "keymat", suite.keymat_octets, suite)
    for part, octets in lengths.items():
        if octets and part not in table:
            wanted = f"keymat, or {octets} octets in hexadecimal, for {suite.name}"
            table.report(f"{table.name}.{part} is missing: expected {wanted}")
    table.get("keymat", _text, "")
    return b"".join(parts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Unexpected("octets in hexadecimal, in quotes")
    return value


def _octets(table: Table, key: str, octets: int, suite: Suite) -> bytes:
    """So many octets in hexadecimal; zeros if there is no such key. What it is stays out of every problem."""
    text = table.get(key, _text, None)
    if text is None:
        return bytes(octets)
    try:
        found = bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        table.report(f"{table.name}.{key}: expected {octets} octets in hexadecimal, for {suite.name}", (key,))
        return bytes(octets)
    if len(found) != octets:
        problem = f"expected {octets} octets in hexadecimal, for {suite.name}; it has {len(found)}"
        table.report(f"{table.name}.{key}: {problem}", (key,))
        return bytes(octets)
    return found
