"""Runs the engine with the SAs of a file, until a signal: no KINK, no Kerberos, nobody who makes new keys."""

from __future__ import annotations

import json
import logging
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TextIO

import trio

from esp.events import (
    Acquired,
    CounterExhausted,
    EndpointMoved,
    EspEvent,
    HardExpired,
    OffloadRefused,
    PathNarrowed,
    SoftExpired,
)
from esp.policy import Policy
from esp.sa import Encapsulation, Mode, SecurityProtocol
from kinkvpn.manual import account
from kinkvpn.service.devices import esp_addresses, inside_of, listening_addresses, network_plan, open_links, open_tun
from kinkvpn.service.engines import choose_engine, obstacle
from kinkvpn.service.netconf import NetworkConfiguration
from kinkvpn.service.paths import with_mtu
from kinkvpn.service.report import spell
from kinkvpn.terminal import show_each

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esp.dataplane import Dataplane
    from esp.sa import Endpoint
    from kinkvpn.config import EngineSettings, TunSettings
    from kinkvpn.manual.file import ManualFile

log = logging.getLogger(__name__)


async def run(manual: ManualFile, engine: EngineSettings, out: TextIO, *, as_json: bool) -> None:
    """Carry packets until SIGINT or SIGTERM; SIGUSR1 has the statistics printed to ``out``, and so has the end.

    Raises:
        StartRefused: the host has no port, device or privilege for it, in a line each.
        NetworkRefused: the kernel would not have an address or a route.
        EspError: the TUN device was taken away; as everything from inside, in an exception group.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
        async with AsyncExitStack() as held, trio.open_nursery() as nursery:
            dataplane = await _start(manual, engine, held)
            await nursery.start(dataplane.run)
            nursery.start_soon(_tell_events, dataplane)
            await _obey(signals, dataplane, out, as_json=as_json)
            nursery.cancel_scope.cancel()


async def _start(manual: ManualFile, engine: EngineSettings, held: AsyncExitStack) -> Dataplane:
    chosen = choose_engine(engine, obstacle())
    outbound = [pair.outbound for pair in manual.pairs]
    without_udp = {sa.protocol for sa in outbound if sa.encapsulation is Encapsulation.RAW}
    link = open_links(
        esp_addresses(listening_addresses(manual.listen)),
        manual.port,
        without_udp,
        offloads=chosen.suited(manual.offload),
        queues=chosen.queues,
    )
    held.callback(link.close)
    settings = _settle_tun(manual)
    tun = open_tun(settings, chosen.suited(manual.offload), chosen.queues)
    held.callback(tun.close)
    dataplane = chosen.dataplane(tun, link, inside=inside_of(settings), receive_control=_ignore)
    for pair in manual.pairs:
        dataplane.add_policy(Policy(pair.outbound.policy, pair.outbound.selector))
        dataplane.install_inbound(pair.inbound)
        dataplane.install_outbound(pair.outbound)
    protected = [pair.outbound.selector.remote for pair in manual.pairs]
    outside = [pair.remote.address for pair in manual.pairs]
    hosts = [pair.outbound.selector for pair in manual.pairs if pair.outbound.mode is Mode.TRANSPORT]
    ah = SecurityProtocol.AH in without_udp
    plan = network_plan(settings, protected, outside, link.local, hosts, ah=ah)
    await held.enter_async_context(NetworkConfiguration(plan))
    where = [spell(endpoint) for endpoint in link.local]
    about = {"tun": tun.name, "esp": where, "policies": len(manual.pairs)}
    log.info("started", extra={"fields": about | chosen.fields})
    return dataplane


def _settle_tun(manual: ManualFile) -> TunSettings:
    sas = [pair.outbound for pair in manual.pairs]
    inside = [address.version for address in manual.tun.addresses] + [sa.selector.version for sa in sas]
    carriers = [(sa.suite, sa.mode, sa.encapsulation, sa.protocol, sa.remote.address) for sa in sas]
    return with_mtu(manual.tun, carriers, six=6 in inside)


def _ignore(_datagram: bytes, _source: Endpoint) -> None:
    """KINK has nobody here to talk to; the link's counters have what came."""


async def _obey(signals: AsyncIterator[int], dataplane: Dataplane, out: TextIO, *, as_json: bool) -> None:
    async for number in signals:
        found = account.of(dataplane.statistics(), dataplane.link_statistics())
        if as_json:
            out.write(f"{json.dumps(found)}\n")
        else:
            show_each(account.tables(found), out)
        out.flush()
        if number != signal.SIGUSR1:
            log.info("stopped", extra={"fields": {"signal": signal.Signals(number).name}})
            return


async def _tell_events(dataplane: Dataplane) -> None:
    async for event in dataplane.events:
        _tell(event)


def _tell(event: EspEvent) -> None:
    match event:
        case HardExpired(policy, spi, inbound):
            log.warning("sa_expired", extra={"fields": _sa(policy, spi, inbound=inbound)})
        case SoftExpired(policy, spi, inbound):  # manual SAs have no soft lifetime: their numbers are running out
            log.warning("sa_near_its_end", extra={"fields": _sa(policy, spi, inbound=inbound)})
        case CounterExhausted(policy, spi):
            log.warning("sequence_exhausted", extra={"fields": _sa(policy, spi, inbound=False)})
        case PathNarrowed(address, octets):
            log.info("path_narrowed", extra={"fields": {"address": address, "octets": octets}})
        case EndpointMoved(policy, spi, remote):
            log.info("endpoint_moved", extra={"fields": {"policy": policy, "remote": spell(remote)}})
        case OffloadRefused(offload, reason):
            log.info("offload_refused", extra={"fields": {"offload": offload.value, "reason": reason}})
        case Acquired(policy):
            log.warning("no_sa", extra={"fields": {"policy": policy}})
        case _:
            log.debug("event", extra={"fields": {"event": str(event)}})


def _sa(policy: str, spi: int, *, inbound: bool) -> dict[str, object]:
    return {"policy": policy, "spi": f"{spi:#010x}", "direction": "inbound" if inbound else "outbound"}
