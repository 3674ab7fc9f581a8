"""Fuzz target of leases: any octets behind the magic are read, or refused with MalformedMessage.

python tests/fuzz/fuzz_lease.py [atheris options]     coverage guided, until a finding or Ctrl-C, with atheris
python tests/fuzz/fuzz_lease.py                       100,000 examples of hypothesis, without atheris
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(tests.parent), str(tests)]

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import strategies as st
from support.fuzzing import fuzz

from kinkvpn.errors import MalformedMessage
from kinkvpn.proto.lease import MAX_DOMAINS, MAX_ROUTES, MAX_SERVERS, Lease, Wanted, ask, grant, parse
from kinkvpn.wire.ipsec_doi import NotifyType
from kinkvpn.wire.isakmp import Notify

FOUR = st.integers(0x0A00_0000, 0x0AFF_FFFF).map(IPv4Address)
SIX = st.integers(0xFD << 120, (0xFE << 120) - 1).map(IPv6Address)
PAIRS = st.tuples(FOUR) | st.tuples(SIX) | st.tuples(FOUR, SIX)
ROUTES = st.builds(
    lambda host, length: ip_network((int(host) >> (32 - length) << (32 - length), length)), FOUR, st.integers(8, 32)
) | st.builds(
    lambda host, length: ip_network((int(host) >> (128 - length) << (128 - length), length)), SIX, st.integers(8, 128)
)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True)
LAST = st.from_regex(r"[a-z]([a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True)  # not of digits alone (RFC 1123 §2.1)
DOMAINS = st.builds(lambda first, last: ".".join([*first, last]), st.lists(LABEL, max_size=3), LAST)
LEASES = st.builds(
    Lease,
    PAIRS,
    st.lists(ROUTES, max_size=MAX_ROUTES, unique=True).map(tuple),
    st.lists(FOUR | SIX, max_size=MAX_SERVERS, unique=True).map(tuple),
    st.lists(DOMAINS, max_size=MAX_DOMAINS, unique=True).map(tuple),
)
WANTED = st.builds(Wanted, st.just(()) | PAIRS)


def refused(notify: Notify) -> bool:
    """Whether it is, with a sound offset."""
    offset = None
    try:
        parse(notify)
    except MalformedMessage as error:
        offset = error.offset
    return offset is not None and 0 <= offset <= len(notify.value)


def check(octets: bytes) -> None:
    """What must hold of any octets: refused, or written again and read the same, within every bound."""
    notify = Notify(1, b"", NotifyType.KINKVPN_CONFIGURATION, b"KVPN" + octets)
    if refused(notify):
        return
    found = parse(notify)
    assert parse(ask(found) if isinstance(found, Wanted) else grant(found)) == found
    assert len({address.version for address in found.addresses}) == len(found.addresses)
    if isinstance(found, Lease):
        assert found.addresses
        assert len(found.routes) <= MAX_ROUTES
        assert all(set(domain) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.") for domain in found.domains)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A request or lease with some octets overwritten, cut out, doubled or put in."""
    octets = bytearray(draw(LEASES.map(grant) | WANTED.map(ask)).value[4:])
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(octets) - 1))
        end = start + draw(st.sampled_from([0, 1, 1, 2, 4]))
        octets[start:end] = draw(st.binary(max_size=4) | st.just(bytes(octets[start:end]) * 2))
    return bytes(octets)


if __name__ == "__main__":
    fuzz(check, mutated(), 100_000)
