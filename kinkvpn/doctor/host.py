"""This host: the engine, its ports and its device, what this user may do, and whether a daemon runs."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from esp.offload import ALL_OFFLOADS, Offload
from esp.sa import Encapsulation
from kinkvpn.config import EspSettings, KinkSettings, TunSettings, engine_settings
from kinkvpn.doctor.finding import Finding, error, note, ok, warning
from kinkvpn.document import DocumentError
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.rootless.namespace import enter
from kinkvpn.rootless.obstacles import attempt, explain
from kinkvpn.service.devices import esp_addresses, listening_addresses, open_link, open_links, open_tun
from kinkvpn.service.engines import choose_engine, obstacle
from kinkvpn.service.obstacles import CAPABILITIES, StartRefused, has_capability

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esp.offload import Grant
    from kinkvpn.doctor.examination import Patient

PROC: Final = Path("/proc/sys")
# Ours. IPv6 asks for 1,280; the device is gone again in a moment.
TRIAL_MTU: Final = 1280


def engine(patient: Patient) -> Iterator[Finding]:
    """Which one would carry packets."""
    settings = patient.configuration.esp if patient.configuration else EspSettings()
    try:
        chosen = choose_engine(engine_settings(settings.engine, os.environ), obstacle())
    except (StartRefused, DocumentError) as refused:
        build = "apt-get install gcc libc6-dev libssl-dev python3-dev && pip install --force-reinstall kinkvpn"
        yield error("engine-refused", str(refused), command=build)
        return
    if chosen.name == "native":
        yield ok("engine", f"the native engine, with ciphers of {chosen.ciphers}")
    else:
        why = "it carries a tenth of what the native one does, and is correct all the same"
        build = "" if obstacle() is None else "apt-get install gcc libssl-dev && pip install --force-reinstall kinkvpn"
        yield note("engine-portable", f"the portable engine: {chosen.reason}", why, build)


def ports(patient: Patient) -> Iterator[Finding]:
    """KINK's and ESP's, by binding them; not while the daemon has them."""
    if patient.daemon_runs:
        yield ok("ports", "the running daemon has its ports")
        return
    from kinkvpn.service.daemon import open_transport

    configured = patient.configuration
    kink, esp = (configured.kink, configured.esp) if configured else (KinkSettings(), EspSettings())
    listen = listening_addresses(kink.listen)
    reasons: list[str] = []
    try:
        if kink.over is not KinkOver.ESP_PORT:
            open_transport(listen, kink.port).close()
    except StartRefused as refused:
        reasons += refused.reasons
    try:
        open_link(esp_addresses(listen), esp.port).close()
    except StartRefused as refused:
        reasons += refused.reasons
    if not reasons:
        yield ok("ports", f"UDP ports {kink.port} and {esp.port} are free")
    for reason in reasons:
        yield _port_refused(reason, kink.port if f":{kink.port}/" in reason else esp.port)


def _port_refused(reason: str, port: int) -> Finding:
    if "is taken by" in reason:
        why = "whoever has it gets our peers' datagrams; another IPsec daemon is the usual one"
        return error("port-taken", reason, why, f"ss -lunp 'sport = :{port}'")
    if "CAP_NET_BIND_SERVICE" in reason:
        why = "kinkvpn run and kinkvpn proxy ask for no port below 1024"
        return error("port-refused", reason, why, "sudo kinkvpn doctor")
    return error("port-refused", reason, command="ip address show")


def device(patient: Patient) -> Iterator[Finding]:
    """The TUN device and the offloads of it, by opening it; not while the daemon has it."""
    if patient.daemon_runs:
        yield from _daemons_device(patient)
        return
    configured = patient.configuration
    tun = configured.tun if configured else TunSettings()
    offloads = configured.offload if configured else ALL_OFFLOADS
    try:
        opened = open_tun(replace(tun, mtu=tun.mtu or TRIAL_MTU), offloads)
    except StartRefused as refused:
        yield _device_refused(str(refused))
        return
    grant = opened.grant
    opened.close()
    yield ok("device", f"/dev/net/tun opens, and {tun.name} can be made")
    yield from refused_offloads(grant)


def _daemons_device(patient: Patient) -> Iterator[Finding]:
    if patient.status is None:
        yield ok("device", "the running daemon has its device")
        return
    tun = patient.status["tun"]
    yield ok("device", f"the running daemon has {tun['name']}, MTU {tun['mtu']}")
    for name, reason in patient.status["offloads"].items():
        if reason:
            yield _offload_refused(name, reason)


def _device_refused(reason: str) -> Finding:
    if "is in use by" in reason:
        return error("device-taken", reason, "two daemons cannot have one device", "ip tuntap show")
    if "CAP_NET_ADMIN" in reason:
        why = "in a container: --cap-add NET_ADMIN; as an ordinary user: kinkvpn run, which needs none"
        return error("device-refused", reason, why, "sudo kinkvpn doctor")
    if not Path("/dev/net/tun").exists():
        why = "in a container: --device /dev/net/tun"
        return error("device-missing", reason, why, "modprobe tun")
    return error("device-refused", reason, command="ls -l /dev/net/tun")


def refused_offloads(grant: Grant) -> Iterator[Finding]:
    """A note for each that was wanted and is not to be had."""
    for offload, reason in grant.refusals.items():
        yield _offload_refused(offload.value, reason)


def _offload_refused(name: str, reason: str) -> Finding:
    why = "packets go one by one where they could go by the dozen: slower, and nothing else"
    refused = Offload(name).value
    return note("offload", f"no {refused}: {reason}", why, f'[offload] {refused} = "off" says that this is known')


def raw(patient: Patient) -> Iterator[Finding]:
    """Sockets for ESP without UDP and for AH, where the configuration asks for one."""
    configured = patient.configuration
    if configured is None or patient.daemon_runs:
        return
    wanted = {each.protocol for each in configured.policies if each.encapsulation is Encapsulation.RAW}
    try:
        if wanted:
            open_links(esp_addresses(listening_addresses(configured.kink.listen)), 0, wanted).close()
    except StartRefused as refused:
        for reason in refused.reasons:
            yield error("raw-refused", reason, 'encapsulation = "udp" asks for no such socket', "sudo kinkvpn doctor")


def capabilities(patient: Patient) -> Iterator[Finding]:
    """What this process has of those that matter."""
    has = [name for name in CAPABILITIES if has_capability(name)]
    lacks = [name for name in CAPABILITIES if name not in has]
    if not lacks:
        yield ok("capabilities", f"uid {os.geteuid()} has {', '.join(has)}")
        return
    line = f"uid {os.geteuid()} lacks {', '.join(lacks)}"
    why = "kinkvpn up needs NET_ADMIN, and NET_BIND_SERVICE for port 910; kinkvpn run and proxy need none"
    yield note("capabilities-missing", line, "" if patient.daemon_runs else why)


def namespaces(patient: Patient) -> Iterator[Finding]:
    """Whether this user may make a network of his own, by making one, in a process that ends with it."""
    del patient
    refused = attempt(enter)
    if refused is None:
        yield ok("namespaces", "a network of one's own can be made without privilege: kinkvpn run works")
        return
    line = explain(refused)
    advised = re.search(r"`(sysctl [^`]*)`", line)
    why = "kinkvpn run and kinkvpn proxy make a network of their own; kinkvpn up needs none"
    yield note("namespaces-refused", line, why, advised[1] if advised else "")


def sysctl(name: str) -> str:
    """Its value; empty where this kernel has none."""
    try:
        return (PROC / name).read_text().strip()
    except OSError:
        return ""


def daemon(patient: Patient) -> Iterator[Finding]:
    """Whether one runs, and which of its tunnels are down."""
    if patient.daemon_hidden:
        why = "what only it knows is left out"
        yield warning(
            "daemon-hidden", f"a daemon runs, and uid {os.geteuid()} may not ask it", why, "sudo kinkvpn doctor"
        )
        return
    if patient.status is None:
        yield note("daemon-down", "no daemon runs, so everything is tried from here", command="kinkvpn up")
        return
    yield ok("daemon", f"a daemon runs, pid {patient.status['pid']}")
    asked = {peer.name for peer in patient.peers}
    for peer in patient.status["peers"]:
        for policy in peer["policies"]:
            if peer["name"] in asked and policy["last_error"] and policy["state"] != "established":
                line = f"{policy['local']} <-> {policy['remote']} is {policy['state']}: {policy['last_error']}"
                yield error(
                    "tunnel-down", line, "as the daemon has it; the lines above and below say more", peer=peer["name"]
                )
