"""Selectors and flows that meet often: few addresses, protocols and ports."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import strategies as st

from esp.inner import OPAQUE, PROTOCOLS_WITH_PORTS, PROTOCOLS_WITH_TYPE, Flow
from esp.policy import Addresses, AddressRange, PortRange, Ports, Selector, icmp_messages

HOSTS4 = [f"10.{net}.{sub}.{host}" for net in (0, 1) for sub in (0, 128) for host in (1, 2)]
HOSTS6 = [f"2001:db8:{net}::{host}" for net in (0, 1) for host in (1, 2)]
PROTOCOLS = [1, 6, 17, 47]
PORTS = [0, 53, 80]


@st.composite
def addresses(draw: st.DrawFn, hosts: list[str], lengths: list[int]) -> Addresses:
    if draw(st.integers(0, 3)) == 0:
        ends = sorted(draw(st.tuples(st.sampled_from(hosts), st.sampled_from(hosts))), key=lambda one: ip_address(one))
        return AddressRange(ip_address(ends[0]), ip_address(ends[1]))
    return ip_network(f"{draw(st.sampled_from(hosts))}/{draw(st.sampled_from(lengths))}", strict=False)


RANGES = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(lambda ends: PortRange(*sorted(ends)))


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    six = draw(st.integers(0, 3)) == 0
    ends = addresses(HOSTS6, [0, 47, 48, 128]) if six else addresses(HOSTS4, [0, 8, 16, 17, 32])
    protocol = draw(st.sampled_from([0, OPAQUE, *PROTOCOLS]))
    local: st.SearchStrategy[Ports] = st.just(0)
    remote: st.SearchStrategy[Ports] = st.just(0)
    if protocol in PROTOCOLS_WITH_PORTS:
        local = remote = st.sampled_from([0, OPAQUE, *PORTS]) | RANGES
    elif protocol in PROTOCOLS_WITH_TYPE:
        local = st.sampled_from([0, OPAQUE, icmp_messages(8), icmp_messages(0), icmp_messages(3, 1)])
    return Selector(draw(ends), draw(ends), protocol, draw(local), draw(remote))


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    hosts = HOSTS6 if draw(st.integers(0, 3)) == 0 else HOSTS4
    host = st.sampled_from(hosts).map(lambda text: ip_address(text).packed)
    protocol = draw(st.sampled_from([*PROTOCOLS, OPAQUE]))
    ports = OPAQUE
    if protocol in PROTOCOLS_WITH_PORTS and draw(st.booleans()):
        ports = draw(st.sampled_from(PORTS)) << 16 | draw(st.sampled_from(PORTS))
    elif protocol in PROTOCOLS_WITH_TYPE and draw(st.booleans()):
        ports = draw(st.sampled_from([0x0000, 0x0800, 0x0301, 0x0302])) * 0x1_0001
    return protocol, draw(host) + draw(host), ports
