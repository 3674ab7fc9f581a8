"""The composition root: the only place that names concrete classes, and the nursery that everything runs in."""

from __future__ import annotations

import errno
import gc
import logging
import os
import secrets
import signal
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import trio

from esp.errors import EspError
from kinkvpn.api.app import application, onlookers_application
from kinkvpn.api.control import AlreadyRunning, ControlSocket, ControlUnavailable
from kinkvpn.api.events import Events
from kinkvpn.api.server import local_client_may_change, nobody_may_change, serve
from kinkvpn.config import Block, GroupMay, LogFormat
from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.session import Acceptor
from kinkvpn.kerberos.tickets import TicketSource, TicketUnavailable
from kinkvpn.key_exchange import KeyExchanges
from kinkvpn.keylog import KeyLog, KeyLogRefused
from kinkvpn.proto.acquaintance import Ourselves
from kinkvpn.proto.events import Path
from kinkvpn.proto.settings import UserToUser
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.service import bypass, kill_switch, preflight
from kinkvpn.service.devices import esp_addresses, inside_of, listening_addresses, open_links, open_metrics
from kinkvpn.service.engines import choose_engine, obstacle
from kinkvpn.service.epoch import epoch
from kinkvpn.service.guests import Guests, carriers_of_anybody
from kinkvpn.service.hooks import Happening, Hooks, of_peer
from kinkvpn.service.inherited import inherited
from kinkvpn.service.keying import Keying
from kinkvpn.service.kill_switch import KillSwitchRefused
from kinkvpn.service.log import reconfigure, told_to
from kinkvpn.service.moves import tell_of_moves
from kinkvpn.service.notify import Notifier
from kinkvpn.service.obstacles import StartRefused, explain_bind, first_leaf
from kinkvpn.service.paths import PathMtus, carriers_of, with_mtu
from kinkvpn.service.place import ThisHost
from kinkvpn.service.presence import Presence
from kinkvpn.service.reload import Reload, ReloadRefused
from kinkvpn.service.running import Resources, Running
from kinkvpn.service.sleep import make_anew_after_sleep
from kinkvpn.service.transport import KinkTransport, OwnAddresses
from kinkvpn.service.tunnels import Exceptions, Tunnels, plan_of, policies_of, warn_of_legacy, without_udp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path as FilePath
    from types import TracebackType

    from esp.dataplane import Dataplane
    from esp.sa import Endpoint, SaParameters
    from kinkvpn.config import Configuration, EngineSettings, HostSettings, TunSettings
    from kinkvpn.proto.peer import Peer
    from kinkvpn.proto.settings import PeerSettings
    from kinkvpn.service.engines import ChosenEngine
    from kinkvpn.service.place import Place
    from kinkvpn.web.hosts import OnlyHosts

log = logging.getLogger(__name__)

# Ours. Of the two seconds that stopping may take, so much for the answers to our DELETEs; an idle peer answers in one
# round trip, and the rest is for the undoing on a busy machine.
DELETE_SECONDS = 1.2

# Ours. How often we look whether our ticket-granting ticket is another by now. It costs a thread and a millisecond, and
# no KDC; half a minute after somebody's kinit peers are offered what that brought, and what they had before still does.
TGT_SECONDS = 30.0


class Daemon:
    """One ``kinkvpn up``.

    Args:
        configuration: validated.
        engine: what was asked for, the environment taken into account.
        source: the file that it is from, to be read again when it is to change; None where there is none.
        place: where its device is.
        beside: called once it is up, and the daemon ends when that does; None for one that runs until it is told.
    """

    def __init__(
        self,
        configuration: Configuration,
        engine: EngineSettings,
        source: FilePath | None = None,
        *,
        place: Place | None = None,
        beside: Callable[[Running], Awaitable[None]] | None = None,
    ) -> None:
        self._configuration = configuration
        self._source = source
        self._engine_settings = engine
        self._place = place or ThisHost()
        self._beside = beside
        self._started = time.monotonic()
        self._notifier = Notifier(os.environ)
        self._hooks = Hooks(configuration.hooks, os.environ)
        self._stopping = trio.Event()
        self._events = Events(int(time.time()))
        self._reload: Reload | None = None  # once it is up
        self._onlookers: OnlyHosts | None = None  # likewise, where there are any
        self._signalled = False

    async def run(self) -> None:
        """From nothing to a running host, and back to nothing after SIGTERM, SIGINT or ``kinkvpn down``.

        Raises:
            StartRefused: something that has to hold does not; everything is as it was.
            KinkvpnError, EspError: it broke while running; everything is undone.
        """
        failure: KinkvpnError | EspError | None = None
        try:
            signalled = trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            with signalled as signals, told_to(self._events.add):
                async with AsyncExitStack() as held, trio.open_nursery() as nursery:
                    nursery.start_soon(self._obey_signals, signals, nursery)
                    await self._live(held, nursery)
                    nursery.cancel_scope.cancel()
        except* (KinkvpnError, EspError) as group:
            failure = first_leaf(group)
        await self._leave()
        if failure is not None:
            raise failure
        log.info("stopped", extra={"fields": {"uptime": time.monotonic() - self._started}})

    async def _leave(self) -> None:
        """The kill switch ends where somebody says so by ``down``, and not with a signal, a crash or a refusal."""
        configuration = self._configuration if self._reload is None else self._reload.configuration
        block = configuration.clear.block
        if block is Block.NOTHING:
            return
        if self._signalled or not self._stopping.is_set():
            fields = {"block": block.value, "reason": "kinkvpn unblock lets it out"}
            log.warning("kill_switch_stays", extra={"fields": fields})
            if self._reload is not None:
                with suppress(KillSwitchRefused):  # then it lets out what it did before
                    await kill_switch.block(configuration, running=False)
            return
        try:
            await kill_switch.unblock(configuration.tun.name)
        except KillSwitchRefused as refused:
            log.warning("kill_switch_stays", extra={"fields": {"block": block.value, "reason": str(refused)}})

    async def _live(self, held: AsyncExitStack, nursery: trio.Nursery) -> None:
        try:
            keying = await self._start(held, nursery)
        except StartRefused:
            raise
        except (KinkvpnError, EspError) as error:
            raise StartRefused(str(error)) from error
        self._notifier.ready()
        await self._stopping.wait()
        log.info("stopping")
        self._notifier.stopping()
        await keying.close(DELETE_SECONDS)
        await self._hooks.finish(Happening("down"))

    async def _obey_signals(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            log.info("signal", extra={"fields": {"name": signal.Signals(number).name}})
            if number == signal.SIGHUP:
                if self._reload is not None:  # else the file has just been read
                    nursery.start_soon(self._reload_unasked, self._reload)
                continue
            # From here on the kernel has the next one: whoever sends a second signal does not want to wait for us.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._signalled = True
            self._stopping.set()
            if self._reload is None:
                nursery.cancel_scope.cancel()

    async def _reload_unasked(self, reload: Reload) -> None:
        """Who sends a signal reads the log for what has become of it."""
        self._notifier.reloading()
        with suppress(ReloadRefused):
            await reload()
        self._notifier.ready()

    async def _start(self, held: AsyncExitStack, nursery: trio.Nursery) -> Keying:
        engine = choose_engine(self._engine_settings, obstacle())
        self._configuration = bypass.here(self._configuration)
        resources = await acquire(self._configuration, engine, held, self._place)
        acceptor = open_acceptor(self._configuration.host)
        presence: Presence[Peer] = Presence(lambda peer, come: self._hooks.tell(of_peer(peer, come)))
        keying, dataplane, guests = compose(self._configuration, resources, acceptor, engine, presence)
        tunnels = tunnels_of(self._configuration, resources, dataplane, keying)

        def user_to_user() -> bool:
            return any(peer.user_to_user is not UserToUser.NEVER for peer in tunnels.peers.values())

        def kdc_timeout() -> float:
            return keying.ticket_deadline

        await nursery.start(offer_tgts, resources.tickets, acceptor, kdc_timeout, user_to_user)
        await nursery.start(dataplane.run)
        await nursery.start(resources.tickets.run)

        def others(configuration: Configuration) -> None:
            self._take_over(configuration)
            keying.ticket_deadline = configuration.host.kdc_timeout

        reload = Reload(self._source, self._configuration, tunnels, partial(guests.change, keying), others)
        running = Running(reload, engine, self._started, self._stopping, self._events, resources, dataplane, keying)
        self._hooks.introduce(running.introduction())
        self._hooks.tell(Happening("up"))  # before any peer's, and run once all is started
        await nursery.start(keying.run)
        self._reload = reload
        for task in (guests.see_off, make_anew_after_sleep, tell_of_moves):
            nursery.start_soon(task, keying)
        listener, app = resources.control.listener(), application(running)

        def may_change(client: trio.SocketStream) -> bool:
            others = reload.configuration.control.group_may is GroupMay.CHANGE
            return local_client_may_change(client, others=others)

        await nursery.start(partial(serve, listener, app, may_change=may_change))
        await self._serve_onlookers(running, nursery)
        nursery.start_soon(self._notifier.run, running.summary, dataplane.wait_turn)
        spare_the_collector()
        warn_of_legacy(resources.peers)
        nursery.start_soon(self._hooks.run)
        log.info("started", extra={"fields": running.headline()})
        if self._beside is not None:
            nursery.start_soon(self._accompany, self._beside, running)
        return keying

    def _take_over(self, configuration: Configuration) -> None:
        reconfigure(level=configuration.log.level.value, as_json=configuration.log.format is LogFormat.JSON)
        self._hooks.change(configuration.hooks)
        if self._onlookers is not None:
            self._onlookers.known_as(configuration.metrics.hosts)

    async def _serve_onlookers(self, running: Running, nursery: trio.Nursery) -> None:
        """Metrics and the status page by TCP, where they are wanted."""
        listener, settings = running.resources.metrics, self._configuration.metrics
        if listener is None or settings.listen is None:
            return
        self._onlookers = app = onlookers_application(running, settings.hosts)
        await nursery.start(partial(serve, listener, app, may_change=nobody_may_change))
        log.info("metrics_served", extra={"fields": {"address": settings.listen.address, "port": settings.listen.port}})

    async def _accompany(self, beside: Callable[[Running], Awaitable[None]], running: Running) -> None:
        await beside(running)
        self._stopping.set()


def spare_the_collector() -> None:
    """What was made to start with stays to the end, and a CREATE makes a hundred objects that stay for hours.

    Python would look through all of them after each 700 new ones, and at thousands of peers again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)


async def acquire(configuration: Configuration, engine: ChosenEngine, held: AsyncExitStack, place: Place) -> Resources:
    """What can be refused without asking others first, all of it; then the KDC; what changes the host comes last.

    Args:
        configuration: of it all.
        engine: that will have the sockets and the device.
        held: gets what has to be given back.
        place: where the device is to be.

    Raises:
        StartRefused: a line for everything that stands in the way; ``held`` has what to give back.
        ControlUnavailable: it is running already.
        NetworkRefused: the kernel would not have an address or a route.
    """
    host = configuration.host
    refused = Refusals(preflight.check_kerberos(host))
    with refused:
        control = ControlSocket(configuration.control.socket, configuration.control.group)
        held.callback(control.close)
        await kill_switch.block(configuration)
    peers: tuple[PeerSettings, ...] = ()
    with refused:
        peers = await preflight.resolve_peers(configuration)
    listen = listening_addresses(configuration.kink.listen)
    offloads, queues = engine.suited(configuration.offload), engine.queues
    with refused:
        only_esp = configuration.kink.over is KinkOver.ESP_PORT
        transport = open_transport(() if only_esp else listen, configuration.kink.port)
        held.callback(transport.close)
    with refused:
        esp, raw = configuration.esp, without_udp(configuration.policies)
        link = open_links(esp_addresses(listen), esp.port, raw, esp.hop_limit, offloads=offloads, queues=queues)
        held.callback(link.close)
    with refused:
        paths = PathMtus(peer.esp.address for peer in peers)
        settings = settle_tun(configuration, peers, paths)
        tun = place.open_device(settings, offloads, queues)
        held.callback(tun.close)
    with refused:
        keys = open_key_log(configuration.log.keys, held)
    with refused:
        metrics = open_metrics(configuration.metrics.listen, held)
    refused.raise_all()
    tickets = TicketSource(Credentials(host.principal, keytab=host.initiator_keytab, ccache=host.ccache))
    await preflight.reach_kdc(tickets, host)
    sockets = [*transport.local, *link.local]
    plan = plan_of(settings, exceptions_of(configuration), peers, sockets)
    directory = configuration.control.socket.parent
    network = await held.enter_async_context(place.configured(plan, configuration.dns, directory))
    return Resources(control, peers, transport, link, tun, settings, paths, tickets, network, keys, metrics)


class Refusals:
    """Reasons not to start. ``with refusals:`` notes a refusal inside and goes on after the block."""

    def __init__(self, reasons: Sequence[str] = ()) -> None:
        self._reasons = list(reasons)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        match error:
            case StartRefused():
                self._reasons += error.reasons
            case KillSwitchRefused():
                self._reasons.append(str(error))
            case ControlUnavailable() if not isinstance(error, AlreadyRunning):
                self._reasons.append(str(error))
            case _:
                return False  # beside a running daemon everything else is refused too, and says nothing more
        return True

    def raise_all(self) -> None:
        """Raises StartRefused if there is any."""
        if self._reasons:
            raise StartRefused(*self._reasons)


def open_acceptor(host: HostSettings) -> Acceptor:
    """What takes AP-REQs: with the keytab where there is one, with our ticket-granting tickets once it has them."""
    return Acceptor([host.principal], host.keytab, replay_cache=host.replay_cache)


async def offer_tgts(
    tickets: TicketSource,
    acceptor: Acceptor,
    deadline: Callable[[], float],
    wanted: Callable[[], bool] = lambda: True,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Have ``acceptor`` offer our ticket-granting ticket of the day, renewed by us or by whoever keeps the cache.

    Args:
        tickets: where ours come from.
        acceptor: for whom.
        deadline: seconds that a look may take.
        wanted: whether some peer may ask for one.
        task_status: told after the first look.
    """
    failed = False
    while True:
        if not wanted():
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(TGT_SECONDS)
            continue
        try:
            tgt = await tickets.own_tgt(deadline=deadline())
        except TicketUnavailable as unavailable:
            if not failed:
                log.warning("tgt_unavailable", extra={"fields": {"reason": unavailable.refusal.reason}})
            failed = True
        else:
            failed = False
            if acceptor.hold_tgt(tgt):
                ends = datetime.fromtimestamp(tgt.endtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                log.info("tgt_offered", extra={"fields": {"principal": tgt.client, "ends": ends}})
        task_status.started()
        task_status = trio.TASK_STATUS_IGNORED
        await trio.sleep(TGT_SECONDS)


def settle_tun(configuration: Configuration, peers: Sequence[PeerSettings], paths: PathMtus) -> TunSettings:
    """The device as configured, with an MTU for the paths to ``peers`` where none is named."""
    tun = configuration.tun
    inside: list[int] = [address.version for address in tun.addresses]
    inside += [policy.selector.version for policy in configuration.policies]
    inside += [network.version for network in tun.lent]
    strangers = carriers_of_anybody() if tun.lent else []
    return with_mtu(tun, [*carriers_of(peers), *strangers], paths, six=6 in inside)


def compose(
    configuration: Configuration,
    resources: Resources,
    acceptor: Acceptor,
    engine: ChosenEngine,
    presence: Presence[Peer],
) -> tuple[Keying, Dataplane, Guests]:
    """The two planes, each knowing the other: KINK behind the non-ESP marker comes up from the data plane's loop. And
    who comes to them without a peer of the configuration.
    """

    def receive_control(datagram: bytes, source: Endpoint) -> None:
        keying.receive(datagram, Path(source, marked=True))

    host = configuration.host
    dataplane = engine.dataplane(
        resources.tun,
        resources.link,
        inside=inside_of(resources.tun_settings),
        receive_control=receive_control,
        witness=None if resources.keys is None else partial(write_keys, resources.keys),
    )
    dataplane.change_policies((), policies_of(exceptions_of(configuration), resources.peers))
    guests = Guests(configuration.people, [each.ip for each in configuration.tun.addresses], dataplane)
    keying = Keying(
        principal=host.principal,
        peers=resources.peers,
        kerberos=acceptor,
        tickets=resources.tickets,
        transport=resources.transport,
        dataplane=dataplane,
        epoch=epoch(),
        random=secrets.token_bytes,
        ticket_deadline=host.kdc_timeout,
        key_exchange=KeyExchanges(),
        ourselves=Ourselves(
            resources.tun_settings.mtu,
            configuration.kink.port,
            resources.link.local[0].port,
            owns=OwnAddresses(),
            path_mtu=resources.paths,
            machine=host.machine,
        ),
        limit_mtu=resources.network.limit_mtu,
        presence=presence,
        door=guests.admit,
    )
    resources.transport.report_unreachable_to(keying.unreachable)
    return keying, dataplane, guests


def tunnels_of(configuration: Configuration, resources: Resources, dataplane: Dataplane, keying: Keying) -> Tunnels:
    """Those that have just been brought up."""
    return Tunnels(
        tun=resources.tun_settings,
        sockets=[*resources.transport.local, *resources.link.local],
        paths=resources.paths,
        network=resources.network,
        dataplane=dataplane,
        keying=keying,
        exceptions=exceptions_of(configuration),
        peers=resources.peers,
    )


def exceptions_of(configuration: Configuration) -> Exceptions:
    """What it has beside the peers' policies."""
    return Exceptions(configuration.before, configuration.after)


def open_key_log(path: FilePath | None, held: ExitStack | AsyncExitStack) -> KeyLog | None:
    """Where keys are to be written to, if anywhere. Raises StartRefused, with what is wrong with that file."""
    if path is None:
        return None
    try:
        keys = held.enter_context(KeyLog(path))
    except KeyLogRefused as error:
        raise StartRefused(str(error)) from error
    reason = "whoever reads this file reads what every tunnel carries; [log] keys is for debugging"
    log.warning("keys_are_written", extra={"fields": {"path": str(path), "reason": reason}})
    return keys


def write_keys(keys: KeyLog, sa: SaParameters, inbound: bool) -> None:  # a Dataplane's witness
    """Keep the keys of an SA that has been installed. A full disk takes no tunnel down."""
    try:
        keys.write(sa, "inbound" if inbound else "outbound")
    except OSError as error:
        log.warning("keys_not_written", extra={"fields": {"path": str(keys.path), "reason": error.strerror}})


def open_transport(listen: Sequence[str], port: int) -> KinkTransport:
    """Of the sockets that we were given, or new ones. Raises StartRefused, with who has the port or what is missing."""
    given = inherited("kink") if listen else []
    if given:
        return KinkTransport((), given=given)
    try:
        return KinkTransport(listen, port)
    except OSError as error:
        address = str(error.filename).partition(" ")[0]
        reason = explain_bind(address, port, error.errno)
        if error.errno in (errno.EACCES, errno.EPERM):
            reason += ', or without this port, with kink.over = "4500"'
        raise StartRefused(reason) from error
