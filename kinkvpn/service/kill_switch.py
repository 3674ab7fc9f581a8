"""The kill switch: an nftables table of ours that keeps in what must not leave in the clear, with a daemon or without.

It says the same as the SPD, policy by policy, to packets that leave otherwise than through the tunnel: what is bypassed
passes, what is protected or discarded does not. Routes could say some of it. But a longer prefix, which any DHCP server
can hand out, goes before them, and so does a socket that is bound to a device; a packet filter looks at what leaves,
whoever sent it there.

It stays when the daemon ends, however it ends, and the next one replaces it in one transaction. ``kinkvpn down`` and
``kinkvpn unblock`` take it away.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import trio

from esp.policy import ANY_PORT, ANY_PROTOCOL, Action, Direction, Policy, PortRange, networks_of
from esp.sa import Encapsulation
from kinkvpn.config.clear import Block
from kinkvpn.errors import KinkvpnError
from kinkvpn.service.rules import TYPED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esp.policy import Addresses, Ports, Selector
    from kinkvpn.config import Configuration

log = logging.getLogger(__name__)

MISSING = "the kill switch (clear.block) needs nft: apt-get install nftables"

# ours
# nft answers in milliseconds; a machine a thousand times slower is broken.
NFT_SECONDS = 20.0
# Where it is installed; not every account has that in its PATH.
SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"

# ICMP of the one family in packets of the other: nft has no such thing, and nobody else has.
NEVER = {(4, 58), (6, 1)}

# What a host has to say to its neighbours to have a network at all: DHCP (RFC 2131 §4.1, RFC 8415 §7.2), neighbour
# discovery (RFC 4861 §4) and MLD (RFC 2710 §3, RFC 3810 §5). ARP is none of this filter's business.
NEIGHBOURS = (
    "udp sport 68 udp dport 67 accept",
    "udp sport 546 udp dport 547 accept",
    "icmpv6 type { 131, 132, 133, 134, 135, 136, 137, 143 } accept",
)


class KillSwitchRefused(KinkvpnError):
    """nftables are not to be had; the message says why."""


def table_of(device: str) -> str:
    """The name of our table; one for each TUN device, as there is a daemon for each.

    Whatever a device may be called (:data:`kinkvpn.values.device_name`) nft has as a name too. Were dashes and dots
    made one, the daemon of a-b would take away what the one of a.b keeps in.
    """
    return f"kinkvpn_{device}"


def ruleset(configuration: Configuration, uid: int | None) -> str:
    """What nft(8) is to read, which replaces what there was.

    Args:
        configuration: its policies, its ports, its device, and what is to be blocked.
        uid: whose the sockets of ESP and KINK are; None while there are none.
    """
    protecting = (Policy(policy.name, policy.selector) for policy in configuration.policies)
    policies = [*configuration.before, *protecting, *configuration.after]
    everything = configuration.clear.block is Block.EVERYTHING
    table, device = table_of(configuration.tun.name), configuration.tun.name
    chains = {
        "output": ("type filter hook output priority filter;", *_own(configuration, uid), "jump policies"),
        "forward": ("type filter hook forward priority filter;", "jump policies"),
        "policies": (
            f'oifname {{ "lo", "{device}" }} accept',
            *_rules(policies),
            *_rest(device, everything=everything),
        ),
    }
    text = "".join(f"  chain {name} {{\n    " + "\n    ".join(rules) + "\n  }\n" for name, rules in chains.items())
    return f"add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{text}}}\n"


def _own(configuration: Configuration, uid: int | None) -> Iterator[str]:
    """ESP and KINK. Anybody may have their ports once the daemon has crashed: told by the account, too. Before it has
    started, and after it was stopped, they are let out for nobody.
    """
    if uid is None:
        return
    yield f"meta skuid {uid} udp sport {{ {configuration.kink.port}, {configuration.esp.port} }} accept"
    if any(policy.encapsulation is Encapsulation.RAW for policy in configuration.policies):
        yield f"meta skuid {uid} meta l4proto {{ esp, ah }} accept"


def _rest(device: str, *, everything: bool) -> tuple[str, ...]:
    return (*NEIGHBOURS, f'iifname "{device}" accept', "counter drop") if everything else ()


def _rules(policies: Iterable[Policy]) -> Iterator[str]:
    for policy in policies:
        if Direction.OUTBOUND not in policy.directions:
            continue
        for selector in policy.selectors:
            if (selector.version, selector.protocol) in NEVER:
                continue
            match policy.action:
                case Action.BYPASS:
                    yield f"{_match(selector)} accept"
                case Action.DISCARD:
                    yield f"{_match(selector)} counter drop"
                case Action.PROTECT:
                    yield from (f"{kept} counter drop" for kept in _kept_in(selector))


def _kept_in(selector: Selector) -> Iterator[str]:
    """From wherever: a host that has lost its inside address would send from another. And, where it goes by ports, what
    does not show them: fragments but the first.
    """
    yield _match(selector, local=False)
    if (selector.local_port, selector.remote_port) != (ANY_PORT, ANY_PORT):
        fragment = f"ip protocol {selector.protocol} ip frag-off & 0x1fff != 0"
        yield f"{_addresses('daddr', selector.remote)} {fragment if selector.version == 4 else 'exthdr frag exists'}"


def _match(selector: Selector, *, local: bool = True) -> str:
    parts = [_addresses("daddr", selector.remote)]
    if local and _narrow(selector.local):
        parts.append(_addresses("saddr", selector.local))
    if selector.protocol != ANY_PROTOCOL:
        parts.append(f"meta l4proto {selector.protocol}")
    if selector.protocol in TYPED and isinstance(selector.local_port, PortRange):
        parts.append(_messages("icmp" if selector.version == 4 else "icmpv6", selector.local_port))
    elif selector.protocol not in TYPED:
        parts += [f"th {end} {_span(ports)}" for end, ports in _ports(selector) if ports != ANY_PORT]
    return " ".join(parts)


def _ports(selector: Selector) -> tuple[tuple[str, Ports], tuple[str, Ports]]:
    return ("sport", selector.local_port), ("dport", selector.remote_port)


def _narrow(addresses: Addresses) -> bool:
    return networks_of(addresses)[0].prefixlen > 0


def _addresses(end: str, addresses: Addresses) -> str:
    if not _narrow(addresses):
        return f"meta nfproto ipv{addresses.version}"
    family = "ip" if addresses.version == 4 else "ip6"
    return f"{family} {end} {{ {', '.join(map(str, networks_of(addresses)))} }}"


def _messages(family: str, messages: PortRange) -> str:
    kinds, codes = (PortRange(messages.first >> shift & 255, messages.last >> shift & 255) for shift in (8, 0))
    return f"{family} type {_span(kinds)}" + ("" if codes == (0, 255) else f" {family} code {_span(codes)}")


def _span(ports: Ports) -> str:
    first, last = ports if isinstance(ports, PortRange) else (ports, ports)
    return str(first) if first == last else f"{first}-{last}"


# Applied.


async def block(configuration: Configuration, *, running: bool = True) -> None:
    """Have nothing leave in the clear that must not, from now on; or, if nothing is to be blocked, no table of ours.

    Args:
        configuration: with what it bypasses among its policies (:mod:`kinkvpn.service.bypass`).
        running: there is a daemon of this account, whose ESP and KINK pass.

    Raises:
        KillSwitchRefused: nft is missing, or may not; what there was is as it was.
    """
    device = configuration.tun.name
    if configuration.clear.block is Block.NOTHING:
        if _nft_path() and await unblock(device, quiet=True):
            log.info("kill_switch_off", extra={"fields": {"table": table_of(device)}})
        return
    await _nft(ruleset(configuration, os.geteuid() if running else None))
    log.info("kill_switch_on", extra={"fields": {"table": table_of(device), "block": configuration.clear.block.value}})


async def stands(device: str) -> bool:
    """Whether there is a table of ours, whoever has left it.

    Raises:
        KillSwitchRefused: nft is missing, or may not look.
    """
    try:
        await _nft(f"list table inet {table_of(device)}")
    except KillSwitchRefused as refused:
        if "No such file" in str(refused):
            return False
        raise
    return True


async def unblock(device: str, *, quiet: bool = False) -> bool:
    """Take the table away; whether there was one.

    Args:
        device: of the daemon.
        quiet: who may not look has none, for all we care.

    Raises:
        KillSwitchRefused: likewise.
    """
    try:
        there = await stands(device)
    except KillSwitchRefused:
        if quiet:
            return False
        raise
    if there:
        await _nft(f"delete table inet {table_of(device)}")
    return there


def obstacles(configuration: Configuration) -> list[str]:
    """A line if what is needed is not installed."""
    return [MISSING] if configuration.clear.block is not Block.NOTHING and _nft_path() is None else []


def _nft_path() -> str | None:
    return shutil.which("nft", path=f"{os.environ.get('PATH', '')}:{SYSTEM}")


async def _nft(commands: str) -> None:
    program = _nft_path()
    if program is None:
        raise KillSwitchRefused(MISSING)
    with trio.move_on_after(NFT_SECONDS) as limit:
        done = await trio.run_process(
            [program, "-f", "-"],
            stdin=commands.encode(),
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env={"PATH": SYSTEM, "LC_ALL": "C"},
        )
    if limit.cancelled_caught:
        raise KillSwitchRefused(f"the kill switch (clear.block): nft has not answered within {NFT_SECONDS:g} s")
    if done.returncode:
        raise KillSwitchRefused(_explained(done.stdout.decode(errors="replace")))


def _explained(said: str) -> str:
    if "Operation not permitted" in said:
        return f"the kill switch (clear.block) needs CAP_NET_ADMIN, which uid {os.geteuid()} has not got"
    reasons = re.findall(r"Error: (.*)", said) or said.strip().splitlines() or ["it failed"]
    return f"the kill switch (clear.block): nft says: {reasons[0]}"
