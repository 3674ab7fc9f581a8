"""A pair of SAs as ``ip xfrm`` commands: what makes a Linux host the end of it that it describes (ip-xfrm(8))."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esp.headers import DontFragment, Ecn
from esp.policy import ANY_PORT, ANY_PROTOCOL
from esp.sa import Encapsulation, Mode, SecurityProtocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esp.headers import HeaderRules
    from esp.policy import Selector
    from esp.sa import Endpoint, SaParameters
    from kinkvpn.manual.pair import Pair

# linux/xfrm.h, XFRMA_REPLAY_ESN_MAX: octets of the longest bitmap that the kernel keeps.
_LONGEST_WINDOW = 4096


def commands(pair: Pair, reqid: int) -> Iterator[str]:
    """Commands for the host that ``pair`` describes; a line each, for a shell or, without the "ip", for ``ip -batch``.

    Args:
        pair: of the host that is to run them.
        reqid: what ties the policies to these SAs; another one for each pair.
    """
    outbound, inbound = pair.outbound, pair.inbound
    # The kernel wants a window of an SA with extended numbers, whichever way it goes: the same for both.
    window = min(inbound.replay_window, _LONGEST_WINDOW)
    if inbound.esn:
        window = _power_of_two(window or _LONGEST_WINDOW)
    here, there = pair.local, pair.remote
    yield _state(outbound, here, there, reqid, window) + _sequence("replay-oseq", outbound.sequence)
    yield _state(inbound, there, here, reqid, window) + _sequence("replay-seq", inbound.sequence)
    yield _policy("out", _selector(outbound.selector), _template(outbound, here, there, reqid))
    arriving = _selector(pair.turned_about().outbound.selector)
    # What is for the host itself, and what it forwards.
    directions = ("in", "fwd") if inbound.mode is Mode.TUNNEL else ("in",)
    for direction in directions:
        yield _policy(direction, arriving, _template(inbound, there, here, reqid))
    if outbound.mode is Mode.TRANSPORT and outbound.encapsulation is Encapsulation.UDP:
        yield from _carriers(here, there)


def _power_of_two(window: int) -> int:
    """The largest within ``window``. Linux 6.1 keeps a window as a ring that it enters at 32 bits of the number modulo
    its size: over 2^32 packets would fall into each other's places.
    """
    return 1 << window.bit_length() - 1


def _carriers(here: Endpoint, there: Endpoint) -> Iterator[str]:
    """The UDP that carries ESP between two hosts is traffic between them too, and has to come in as it is."""
    for direction, one, other in (("out", here, there), ("in", there, here)):
        addresses = f"src {one.address} dst {other.address}"
        yield _policy(direction, f"{addresses} proto 17 sport {one.port} dport {other.port}", "priority 1")


def _state(sa: SaParameters, source: Endpoint, destination: Endpoint, reqid: int, window: int) -> str:
    words = [
        f"ip xfrm state add src {source.address} dst {destination.address}",
        f"proto {sa.protocol.value} spi {sa.spi:#010x} reqid {reqid} mode {sa.mode.value} replay-window {window}",
    ]
    if sa.mode is Mode.TUNNEL:
        words.append("flag af-unspec")  # the inner packets may be of the other family
    if sa.protocol is SecurityProtocol.AH and ":" not in source.address:
        words.append("flag align4")  # RFC 4302 §3.3.3.2.1; by itself the kernel aligns to eight octets
    if sa.esn:
        words.append("flag esn")
    words += _header_flags(sa.headers)
    words += _algorithms(sa)
    if sa.encapsulation is Encapsulation.UDP:
        words.append(f"encap espinudp {source.port} {destination.port} {_any(source)}")
    return " ".join(words)


def _header_flags(rules: HeaderRules) -> Iterator[str]:
    """As far as the kernel has flags for them; without any it does what we do without a word."""
    if rules.ecn is Ecn.COMPATIBLE:
        yield "flag noecn"
    if rules.dscp_inward:
        yield "flag decap-dscp"
    if rules.df is DontFragment.CLEAR:
        yield "flag nopmtudisc"
    if not any(rules.dscp):
        yield "extra-flag dont-encap-dscp"


def _algorithms(sa: SaParameters) -> Iterator[str]:
    suite = sa.suite
    key, salt, integrity_key = suite.split(sa.keymat)
    name = suite.cipher_names.xfrm
    if suite.integrity_names is None:
        yield f"aead '{name}' {_key(key + salt)} {suite.icv_octets * 8}"
        return
    if sa.protocol is SecurityProtocol.ESP:
        yield f"enc '{name}' {_key(key + salt)}"
    yield f"auth-trunc '{suite.integrity_names.xfrm}' {_key(integrity_key)} {suite.icv_octets * 8}"


def _key(octets: bytes) -> str:
    return f"0x{octets.hex()}" if octets else "''"


def _any(endpoint: Endpoint) -> str:
    return "::" if ":" in endpoint.address else "0.0.0.0"  # noqa: S104 # not an address to listen on


def _sequence(word: str, sequence: int) -> str:
    high, low = divmod(sequence, 1 << 32)
    if not sequence:
        return ""
    return f" {word} {low:#x}" + (f" {word}-hi {high:#x}" if high else "")


def _policy(direction: str, selector: str, template: str) -> str:
    return f"ip xfrm policy add {selector} dir {direction} {template}"


def _selector(selector: Selector) -> str:
    """As for a packet that leaves: from local to remote."""
    text = f"src {selector.local} dst {selector.remote}"
    if selector.protocol != ANY_PROTOCOL:
        text += f" proto {selector.protocol}"
    for word, port in (("sport", selector.local_port), ("dport", selector.remote_port)):
        if port != ANY_PORT:
            text += f" {word} {port}"
    return text


def _template(sa: SaParameters, source: Endpoint, destination: Endpoint, reqid: int) -> str:
    ends = f"src {source.address} dst {destination.address}"
    return f"priority 2 tmpl {ends} proto {sa.protocol.value} reqid {reqid} mode {sa.mode.value}"
