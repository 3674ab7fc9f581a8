"""This host: the engine, its ports and its device, what this user may do, and whether a daemon runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import replace
from importlib.metadata import distribution
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from esp.offload import ALL_OFFLOADS
from esp.sa import Encapsulation
from kinkvpn.config import DeviceKind, EspSettings, KinkSettings, TunSettings, engine_settings
from kinkvpn.doctor.finding import Finding, Setting, error, note, ok, warning
from kinkvpn.document import DocumentError
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.proxy import lwip
from kinkvpn.rootless.survey import survey
from kinkvpn.service.devices import esp_addresses, listening_addresses, open_device, open_link, open_links
from kinkvpn.service.engines import SLOWER, choose_engine, obstacle
from kinkvpn.service.obstacles import CAPABILITIES, StartRefused, has_capability
from kinkvpn.service.report import OFF

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from esp.offload import Grant, Offloads
    from kinkvpn.doctor.examination import Patient
    from kinkvpn.service.engines import ChosenEngine

PROC: Final = Path("/proc/sys")
# Ours. IPv6 asks for 1,280; the device is gone again in a moment.
TRIAL_MTU: Final = 1280


def engine(patient: Patient) -> Iterator[Finding]:
    """Which one would carry packets."""
    try:
        chosen = _chosen(patient)
    except (StartRefused, DocumentError) as refused:
        yield error("engine-refused", str(refused), command=build_anew())
        return
    if chosen.name == "native":
        yield ok("engine", f"the native engine, with ciphers of {chosen.ciphers}")
    else:
        why = "it carries a tenth of what the native one does, and is correct all the same"
        built = obstacle() is None
        yield note("engine-portable", f"the portable engine: {chosen.reason}", why, "" if built else build_anew())


def build_anew() -> str:
    """Compiles what is compiled, in this very installation, from where that came from (PEP 610)."""
    origin = json.loads(distribution("kinkvpn").read_text("direct_url.json") or "{}")
    source = unquote(urlsplit(origin.get("url", "")).path) or "kinkvpn"
    editable = ["--editable"] if origin.get("dir_info", {}).get("editable") else []
    pip = shlex.join([sys.executable, "-m", "pip", "install", "--force-reinstall", "--no-deps", *editable, source])
    return f"apt-get install gcc libc6-dev libpython3-dev libssl-dev && {pip}"


def _chosen(patient: Patient) -> ChosenEngine:
    """Raises StartRefused, DocumentError: it is not to be had, or there is none of that name."""
    settings = patient.configuration.esp if patient.configuration else EspSettings()
    return choose_engine(engine_settings(settings.engine, os.environ), obstacle())


def _wanted(patient: Patient) -> Offloads:
    """Offloads that are asked for, and of use to the engine."""
    wanted = patient.configuration.offload if patient.configuration else ALL_OFFLOADS
    try:
        return _chosen(patient).suited(wanted)
    except (StartRefused, DocumentError):  # the look at it says so
        return wanted


def wants_up(patient: Patient) -> bool:
    """Whether ports and a device of this host's are needed, as ``kinkvpn up`` does: of a configuration, and of whoever
    could go without one. To anybody else there are ``kinkvpn run`` and ``kinkvpn proxy``.
    """
    return patient.from_file or has_capability("CAP_NET_ADMIN")


def ports(patient: Patient) -> Iterator[Finding]:
    """KINK's and ESP's, and what the kernel spares ESP's, by binding them; not while the daemon has them."""
    if not wants_up(patient):
        return
    if patient.daemon_runs:
        yield ok("ports", "the running daemon has its ports")
        return
    from kinkvpn.service.daemon import open_transport

    configured = patient.configuration
    # With a gateway's name alone, all goes over ESP's port.
    kink, esp = (
        (configured.kink, configured.esp) if configured else (KinkSettings(over=KinkOver.ESP_PORT), EspSettings())
    )
    listen = listening_addresses(kink.listen)
    reasons: list[str] = []
    refusals: dict[str, str] = {}
    try:
        if kink.over is not KinkOver.ESP_PORT:
            open_transport(listen, kink.port).close()
    except StartRefused as refused:
        reasons += refused.reasons
    try:
        link = open_link(esp_addresses(listen), esp.port, offloads=_wanted(patient))
        refusals = reasons_in(link.grant)
        link.close()
    except StartRefused as refused:
        reasons += refused.reasons
    if not reasons:
        both = f"UDP ports {kink.port} and {esp.port} are free"
        yield ok("ports", f"UDP port {esp.port} is free" if kink.over is KinkOver.ESP_PORT else both)
    for reason in reasons:
        yield _port_refused(patient, reason, kink.port if f":{kink.port}/" in reason else esp.port)
    yield from refused_offloads(refusals)


def _port_refused(patient: Patient, reason: str, port: int) -> Finding:
    if "is taken by" in reason:
        why = "whoever has it gets our peers' datagrams; another IPsec daemon is the usual one"
        return error("port-taken", reason, why, f"ss -lunp 'sport = :{port}'")
    if "CAP_NET_BIND_SERVICE" in reason:
        why = "kinkvpn run and kinkvpn proxy ask for no port below 1024"
        return error("port-refused", reason, why, patient.in_full())
    return error("port-refused", reason, command="ip address show")


def device(patient: Patient) -> Iterator[Finding]:
    """The packet device and the offloads of it, by opening it; not while the daemon has it."""
    if not wants_up(patient):
        return
    if patient.daemon_runs:
        yield from _daemons_device(patient)
        return
    configured = patient.configuration
    tun = configured.tun if configured else TunSettings()
    try:
        opened = open_device(replace(tun, mtu=tun.mtu or TRIAL_MTU), _wanted(patient))
    except StartRefused as refused:
        yield _device_refused(patient, tun, str(refused))
        return
    refusals = reasons_in(opened.grant)
    opened.close()
    yield ok("device", _possible(tun, veth=bool(opened.hardware)))
    yield from refused_offloads(refusals)


def _possible(tun: TunSettings, *, veth: bool) -> str:
    if tun.fd is not None:
        return f"descriptor {tun.fd} is a TUN device"
    return f"{tun.name} can be made, a pair of veth devices" if veth else f"{tun.name} can be made: /dev/net/tun opens"


def _daemons_device(patient: Patient) -> Iterator[Finding]:
    if patient.status is None:
        yield ok("device", "the running daemon has its device")
        return
    tun = patient.status["tun"]
    yield ok("device", f"the running daemon has {tun['name']}, MTU {tun['mtu']}")
    yield from refused_offloads(
        {name: reason for name, reason in patient.status["offloads"].items() if reason not in (None, OFF, SLOWER)}
    )


def _device_refused(patient: Patient, tun: TunSettings, reason: str) -> Finding:
    if tun.fd is not None:
        why = "whoever starts the daemon opens the device, and has to start the doctor likewise"
        return error("device-refused", reason, why)
    if "is there already" in reason or "of another kind" in reason:
        found = error("device-taken", reason, "somebody else's device has the name", f"ip link show {tun.name}")
        return found.mended_by(_another_name(patient))
    if "is in use by" in reason:
        found = error("device-taken", reason, "two daemons cannot have one device", "ip tuntap show")
        return found.mended_by(_another_name(patient))
    if "CAP_NET_ADMIN" in reason:
        return error("device-refused", reason, "in a container: --cap-add NET_ADMIN", patient.in_full())
    if tun.device is DeviceKind.VETH:
        return error("device-refused", reason, command="modprobe veth")
    if not Path("/dev/net/tun").exists():
        why = "in a container: --device /dev/net/tun"
        return error("device-missing", reason, why, "modprobe tun")
    return error("device-refused", reason, command="ls -l /dev/net/tun")


def _another_name(patient: Patient) -> Setting | None:
    """One that nobody has."""
    free = next(name for name in map("kink{}".format, count(1)) if not Path("/sys/class/net", name).exists())
    return patient.setting("tun", f'name = "{free}"')


def reasons_in(grant: Grant) -> dict[str, str]:
    """As a daemon's status has them, by the offload's name."""
    return {offload.value: reason for offload, reason in grant.refusals.items()}


def refused_offloads(refusals: Mapping[str, str]) -> Iterator[Finding]:
    """A note for each reason, with all that were wanted and are not to be had for it."""
    for reason in dict.fromkeys(refusals.values()):
        names = ", ".join(name for name, its in refusals.items() if its == reason)
        why = "packets go one by one where they could go by the dozen: slower, and nothing else"
        yield note("offload", f"no {names}: {reason}", why)


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
            yield error("raw-refused", reason, 'encapsulation = "udp" asks for no such socket', patient.in_full())


def capabilities(patient: Patient) -> Iterator[Finding]:
    """What this process has of those that matter."""
    has = [name for name in CAPABILITIES if has_capability(name)]
    lacks = [name for name in CAPABILITIES if name not in has]
    if not lacks:
        yield ok("capabilities", f"uid {os.geteuid()} has {', '.join(has)}")
        return
    line = f"uid {os.geteuid()} lacks {', '.join(lacks)}"
    if not wants_up(patient):
        why = "kinkvpn run and kinkvpn proxy need none; kinkvpn up GATEWAY needs NET_ADMIN (in a container: --cap-add)"
        gateway = f"sudo {patient.kinkvpn('up', patient.gateway)}" if patient.gateway else ""
        yield note("capabilities-missing", line, why, gateway)
        return
    why = "kinkvpn up needs NET_ADMIN, and NET_BIND_SERVICE for port 910; kinkvpn run and proxy need none"
    yield note("capabilities-missing", line, "" if patient.daemon_runs else why)


def namespaces(patient: Patient) -> Iterator[Finding]:
    """Whether this user may make a network of his own with a packet device in it, by making one.

    Who needs it has nothing else but the proxy, which is without anything where there is no lwIP either.
    """
    needed = not wants_up(patient)
    own, tun, veth = survey()
    refusal = own.refusal or (veth.refusal and tun.refusal)
    if not refusal:
        device = "a TUN device" if not tun.refusal else f"a veth pair ({tun.refusal})"
        yield ok("namespaces", f"kinkvpn run works: without privilege there is a network of one's own, with {device}")
        yield ok("proxy", "kinkvpn proxy works, by the kernel's stack in a network of one's own")
        return
    advised = re.search(r"`(sysctl [^`]*)`", refusal)
    why = "kinkvpn run and kinkvpn proxy make a network of their own; kinkvpn up needs none"
    found = warning("namespaces-refused", refusal, why, advised[1] if advised else "")
    yield found if needed else found.as_note()
    missing = lwip.why_missing()
    if missing is None:
        yield ok("proxy", "kinkvpn proxy works, by lwIP, which needs no network of one's own")
        return
    found = error("proxy-refused", f"kinkvpn proxy does not work here either: lwIP is {missing}", command=build_anew())
    yield found if needed else found.as_note()


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
        line = f"a daemon runs, and uid {os.geteuid()} may not ask it"
        hidden = warning("daemon-hidden", line, why, patient.in_full())
        yield hidden if patient.from_file else hidden.as_note()
        return
    if patient.daemon_fails:
        why = "it may be stopped, or wait for something that hangs; where it hears nothing else, it hears SIGKILL"
        yield error("daemon-silent", patient.daemon_fails, why, f"kill -KILL {patient.daemon_pid}")
        return
    if patient.status is None:
        if patient.from_file:
            yield note("daemon-down", "no daemon runs, so everything is tried from here", command=patient.kinkvpn("up"))
        return
    yield ok("daemon", f"a daemon runs, pid {patient.status['pid']}")
    asked = {peer.name for peer in patient.peers}
    for peer in patient.status["peers"]:
        if peer["name"] in asked:
            yield from _tunnels(patient, peer)


def _tunnels(patient: Patient, peer: Mapping[str, Any]) -> Iterator[Finding]:
    """Those of a peer that are down, together where it is for one reason."""
    name, again = peer["name"], patient.kinkvpn("up", peer["name"])
    if peer["taken_down"]:
        why = "somebody has done that by `kinkvpn down`, and so nothing is tried"
        yield note("tunnel-taken-down", "its tunnels are taken down", why, again, name)
        return
    down = [each for each in peer["policies"] if each["last_error"] and each["state"] != "established"]
    for reason in dict.fromkeys(each["last_error"] for each in down):
        which = [f"{each['local']} <-> {each['remote']}" for each in down if each["last_error"] == reason]
        line = f"{', '.join(which)} {'is' if len(which) == 1 else 'are'} down: {reason}"
        yield error(
            "tunnel-down", line, "so says the daemon; once that is mended, it tries again at once by", again, name
        )
