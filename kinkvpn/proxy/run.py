"""``kinkvpn proxy``, composed: a daemon whose inside is a stack of our own, and the ports that programs use."""

from __future__ import annotations

import logging
import os
import resource
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

import trio

from esp.policy import networks_of
from kinkvpn.config import DeviceKind, engine_settings
from kinkvpn.people import Wishes, configuration_for
from kinkvpn.proxy import lwip
from kinkvpn.proxy.front import Clients, Front, open_listener
from kinkvpn.proxy.kernel import KernelStack
from kinkvpn.proxy.names import Names
from kinkvpn.proxy.outgoing import Outgoing
from kinkvpn.proxy.ports import Ports
from kinkvpn.rootless.instance import control_path, machine_at
from kinkvpn.rootless.obstacles import LWIP, PROXY, attempt, explain
from kinkvpn.rootless.outside import keep
from kinkvpn.rootless.place import InNamespace
from kinkvpn.rootless.run import adapted, wait_until_up
from kinkvpn.rootless.survey import with_device
from kinkvpn.service.daemon import Daemon
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from esp.sa import Endpoint
    from kinkvpn.config import Configuration
    from kinkvpn.proxy.forwards import Forward
    from kinkvpn.proxy.socks import Password
    from kinkvpn.proxy.stack import Stack
    from kinkvpn.rootless.outside import Namespace
    from kinkvpn.service.place import Place
    from kinkvpn.service.running import Running

log = logging.getLogger(__name__)

# Ours. Seconds until the tunnel is up, or we say why it is not.
PATIENCE = 30.0
# Ours. All clients, callers and flows that there may be, each with up to four; a process is given 1,024.
DESCRIPTORS = 4_096


class StackChoice(Enum):
    """What makes the connections into the tunnel; AUTO is the kernel where user namespaces can be made."""

    AUTO = "auto"
    KERNEL = "kernel"
    LWIP = "lwip"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for.

    Args:
        configuration: of a file; None for what ``gateway`` lends.
        gateway: its name, where there is no configuration.
        wishes: what it may have of the traffic.
        listen: for SOCKS and HTTP.
        password: that clients of these have to know, or None.
        local, remote: forwards, -L and -R.
        dns: name servers behind the tunnel; without any, those of the configuration.
        stack: which one.
    """

    configuration: Configuration | None
    gateway: str
    wishes: Wishes
    listen: tuple[Endpoint, ...]
    password: Password | None
    local: tuple[Forward, ...]
    remote: tuple[Forward, ...]
    dns: tuple[IPv4Address | IPv6Address, ...]
    stack: StackChoice = StackChoice.AUTO


def run(wanted: Wanted) -> None:
    """Until SIGTERM, Ctrl-C or ``kinkvpn down``. By a process with one thread.

    Raises:
        StartRefused: there is no stack, or something else that has to hold does not.
        KinkvpnError, EspError: it broke while running.
    """
    have_descriptors()
    with ExitStack() as held:
        space = _namespace(wanted, held)
        trio.run(Proxy(wanted, space).run)


def have_descriptors() -> None:
    """As many as our bounds make of them, or as many as there may be: who comes last must not take everybody's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _namespace(wanted: Wanted, held: ExitStack) -> Namespace | None:
    """Where the kernel's stack is, or None where lwIP is to be used. Raises StartRefused: neither can be had."""
    choice, reason = wanted.stack, ""
    if choice is not StackChoice.LWIP:
        reason = _refusal(DeviceKind.AUTO if wanted.configuration is None else wanted.configuration.tun.device)
        if not reason:
            return held.enter_context(keep())
        if choice is StackChoice.KERNEL:
            raise StartRefused(reason)
    missing = lwip.why_missing()
    if missing is None:
        return None
    if choice is StackChoice.LWIP:
        raise StartRefused(f"lwIP is {missing}")
    raise StartRefused(f"{reason}; and lwIP, which would do without, is {missing}")


def _refusal(kind: DeviceKind) -> str:
    """Why there can be no namespace with a device in it; empty where there can: a filter may let the one be alone."""
    try:
        refused = attempt(partial(with_device, kind))
    except ChildProcessError as error:  # a filter that kills
        return f"a namespace of its own: {error}"
    return explain(refused).removesuffix(f"; {PROXY}").removesuffix(f"; {LWIP}") if refused else ""


class Proxy:
    """One ``kinkvpn proxy``.

    Args:
        wanted: what was asked for.
        space: where the kernel's stack is; None for lwIP.
    """

    def __init__(self, wanted: Wanted, space: Namespace | None) -> None:
        self._wanted = wanted
        self._space = space

    async def run(self) -> None:
        """As :func:`run`."""
        wanted = self._wanted
        configuration = wanted.configuration or await configuration_for(
            wanted.gateway, wishes=wanted.wishes, machine=machine_at(wanted.gateway)
        )
        configuration = adapted(configuration, control_path(os.getpid()))
        engine = engine_settings(configuration.esp.engine, os.environ)
        if self._space is None:
            from kinkvpn.proxy.lwip.place import InLwip

            place: Place = InLwip()
            engine = replace(engine, queues=1)
        else:
            place = InNamespace(self._space)

        async def beside(running: Running) -> None:
            await wait_until_up(running, PATIENCE)
            async with trio.open_nursery() as nursery:
                await self._serve(configuration, await self._stack(configuration, place, nursery), nursery)

        await Daemon(configuration, engine, place=place, beside=beside).run()

    async def _stack(self, configuration: Configuration, place: Place, nursery: trio.Nursery) -> Stack:
        if self._space is not None:
            return KernelStack(self._space, {each.version for each in configuration.tun.addresses})
        from kinkvpn.proxy.lwip.place import InLwip

        assert isinstance(place, InLwip)
        await nursery.start(place.stack.run)
        return place.stack

    async def _serve(self, configuration: Configuration, stack: Stack, nursery: trio.Nursery) -> None:
        wanted = self._wanted
        servers = wanted.dns or tuple(map(ip_address, configuration.dns.servers))
        reach = [subnet for each in configuration.policies for subnet in networks_of(each.selector.remote)]
        outgoing = Outgoing(stack, Names(stack, servers, configuration.dns.domains), reach)
        clients = Clients()
        ports = Ports(stack, outgoing, clients, nursery)
        front = Front(outgoing, wanted.password)
        for local in wanted.listen:
            nursery.start_soon(clients.serve, await open_listener(local), front.serve)
        for forward in wanted.local:
            await ports.forward_local(forward)
        for forward in wanted.remote:
            await ports.forward_remote(forward)
        fields = {
            "listen": [f"{each.address}:{each.port}" for each in wanted.listen],
            "stack": "lwip" if self._space is None else "kernel",
            "local": list(map(str, wanted.local)),
            "remote": list(map(str, wanted.remote)),
            "dns": list(map(str, servers)),
        }
        log.info("proxy", extra={"fields": fields})
        if wanted.password is None and not all(ip_address(each.address).is_loopback for each in wanted.listen):
            reason = "whoever reaches this port is in the tunnel: --password-file asks for a password"
            log.warning("proxy_is_open", extra={"fields": {"reason": reason}})
