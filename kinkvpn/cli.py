"""The command line. Exit codes: 0 done, 1 it failed while running, 2 what was asked for or found cannot be."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kinkvpn import __version__
from kinkvpn.config import DEFAULT_PATH, ControlSettings, engine_settings, load
from kinkvpn.document import DocumentError
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinkvpn.config import Configuration

DONE, FAILED, CANNOT = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT, as a shell has it

# A probe waits for a retransmission or two at the daemon (PROBE_SECONDS there); this is for the way to the daemon too.
ANSWER_SECONDS = 15.0
# Stopping takes two seconds at most; a machine that swaps gets more before we say that it did not work.
DOWN_SECONDS = 10.0

DESCRIPTION = """\
IPsec between Kerberos principals, without the kernel's IPsec: SAs are
negotiated by KINK (RFC 4430), packets travel as ESP (RFC 4303), in UDP unless
told otherwise, or as AH (RFC 4302)."""

EXAMPLES = """\
examples:
  kinkvpn check -c west.toml     would this configuration work on this host?
  kinkvpn up -c west.toml        run in the foreground until Ctrl-C or SIGTERM
  kinkvpn status                 peers, tunnels, ages, and why one is down
  kinkvpn status --probe --json  the same for programs; asks every peer first
  kinkvpn rekey east             new keys for what is established with east
  kinkvpn down                   stop the daemon: deletes its SAs, undoes routes
  kinkvpn demo                   a realm, two hosts and a tunnel, all throwaway
  kinkvpn decode wire.pcap --keytab east.keytab   every KINK message, explained
  kinkvpn esp --manual sas.toml  the ESP engine with keys of a file, no KINK

the smallest configuration:
  [host]
  principal = "kink/west.example.com@EXAMPLE.COM"
  keytab = "/etc/krb5.keytab"
  [tun]
  addresses = ["10.1.0.1/24"]
  [[peer]]
  name = "east"
  principal = "kink/east.example.com@EXAMPLE.COM"
  address = "east.example.com"
  [[peer.policy]]
  local = "10.1.0.0/24"
  remote = "10.2.0.0/24"

exit codes: 0 done; 1 failed while running, or no daemon answers;
2 bad input, or the host lacks something (one line each on stderr)."""


ABOUT_UP = """Runs the daemon in the foreground and logs to stderr. SIGTERM, Ctrl-C or `kinkvpn down` make it delete
its SAs, undo addresses and routes, and exit 0. What keeps it from starting is said in a line each, exit code 2."""
ABOUT_CHECK = """Reads the configuration, the keytab and krb5.conf, and resolves every peer; says all that is wrong,
or what `kinkvpn up` would do. Starts nothing and asks no KDC. Exit code 2 if something is wrong."""
ABOUT_STATUS = """Peers, policies, SPIs, ages and counters, and why a tunnel is down. Exit code 1 if no daemon answers,
or, with --probe, if a peer does not."""
ABOUT_REKEY = """Makes a new pair of SAs for every established policy, moves the traffic onto it and deletes the old
pair. Exit code 1 if no daemon answers, if nothing is established, or if a peer does not agree: then the old pair
stays."""
ABOUT_DOWN = """Tells the daemon to delete its SAs, undo addresses and routes and end; returns when its process is
gone."""
ABOUT_DEMO = """A throwaway Kerberos realm and two hosts in network namespaces, a tunnel between them, pings, a
transfer, and a capture in which every packet is accounted for. Leaves nothing behind. Exit code 0 only if all of it
held."""
ABOUT_DECODE = """Prints every KINK message of a pcap or pcapng file, decrypted and explained, with what is wrong with
it. A message opens with the keytab of its receiver, its answer with the same key. Exit code 0 only if there were KINK
messages and every one of them parsed, verified and decrypted; 1 if not; 2 for a file that is no capture or no keytab.
Prints no keys; but who can read a keytab can derive those of the tunnels."""


ABOUT_ESP = """Runs the ESP engine with the SAs of a file, whose keys somebody has written down: for trying it against
other implementations, for measuring and for debugging. Nobody makes new keys: where a lifetime ends, the traffic does.
SIGUSR1 prints statistics, and so does the end, which SIGTERM or Ctrl-C brings. With --print nothing runs: the same SAs
come as commands for a Linux host, as a table for Wireshark or as JSON, keys and all."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line like all of ours."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2."""
        self.exit(CANNOT, f"kinkvpn: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in ``arguments``, the process's own if None; the exit code."""
    asked = parser().parse_args(arguments)
    try:
        code: int = asked.run(asked)
        sys.stdout.flush()
    except DocumentError as error:
        return complain(error, CANNOT)
    except KinkvpnError as error:
        return complain(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        abandon_output()
        return DONE
    return code


def abandon_output() -> None:
    """Whoever read us has seen enough. Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> Parser:
    """Every command, with its help."""
    raw = argparse.RawDescriptionHelpFormatter
    root = Parser(prog="kinkvpn", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    root.add_argument("--version", action="version", version=f"kinkvpn {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    up = commands.add_parser("up", help="run the daemon in the foreground", description=ABOUT_UP)
    up.add_argument("-c", "--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default {DEFAULT_PATH}")
    up.set_defaults(run=run_up)

    validates = "validate a configuration and this host without starting; needs no root"
    check = commands.add_parser("check", help=validates, description=ABOUT_CHECK)
    check.add_argument(
        "-c", "--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default {DEFAULT_PATH}"
    )
    check.set_defaults(run=run_check)

    status = commands.add_parser("status", help="show what a running daemon does", description=ABOUT_STATUS)
    add_socket_options(status)
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.add_argument(
        "--probe", action="store_true", help="ask every peer for its STATUS first; exit 1 if one is dead"
    )
    status.set_defaults(run=run_status)

    renews = "give a running daemon's tunnels new keys now, without losing a packet"
    rekey = commands.add_parser("rekey", help=renews, description=ABOUT_REKEY)
    rekey.add_argument("peer", nargs="?", metavar="PEER", help="only this peer's; default all")
    add_socket_options(rekey)
    rekey.set_defaults(run=run_rekey)

    stops = "stop a running daemon, and wait until it has ended"
    down = commands.add_parser("down", help=stops, description=ABOUT_DOWN)
    add_socket_options(down)
    down.set_defaults(run=run_down)

    shows = "show it all on this machine, in namespaces; needs root"
    demo = commands.add_parser("demo", help=shows, description=ABOUT_DEMO)
    demo.add_argument("--json", action="store_true", help="one JSON object at the end")
    demo.add_argument(
        "--size", type=int, default=200, metavar="MB", help="what to transfer, in 10^6 octets; default 200"
    )
    demo.set_defaults(run=run_demo)
    add_decode(commands.add_parser("decode", help="explain the KINK messages of a capture", description=ABOUT_DECODE))
    add_esp(commands.add_parser("esp", help="run the ESP engine with keys of a file", description=ABOUT_ESP))
    return root


def add_esp(esp: argparse.ArgumentParser) -> None:
    """The options of ``kinkvpn esp``."""
    esp.add_argument("--manual", type=Path, required=True, metavar="FILE", help="the SAs: docs/manual.md has its keys")
    forms = "xfrm", "wireshark", "json"
    esp.add_argument("--print", choices=forms, dest="form", help="print the SAs, with their keys, and run nothing")
    esp.add_argument("--peer", action="store_true", help="with --print: as the other end has them")
    esp.add_argument("--json", action="store_true", help="statistics as one JSON object a line")
    esp.set_defaults(run=run_esp)


def add_decode(decode: argparse.ArgumentParser) -> None:
    """The options of ``kinkvpn decode``."""
    decode.add_argument("capture", metavar="CAPTURE", help="a pcap or pcapng file; - for stdin")
    decode.add_argument(
        "--keytab", type=Path, action="append", default=[], metavar="FILE", help="keys that open tickets; repeatable"
    )
    others = "a credential cache whose TGT user-to-user tickets were made with; repeatable"
    decode.add_argument("--ccache", type=Path, action="append", default=[], metavar="FILE", help=others)
    more = "a UDP port that carries KINK beside 910 and 4500; repeatable"
    decode.add_argument("--port", type=udp_port, action="append", default=[], metavar="N", help=more)
    decode.add_argument("--json", action="store_true", help="one JSON object a message and line, the last a summary")
    decode.set_defaults(run=run_decode)


def udp_port(text: str) -> int:
    """1 to 65535. Raises argparse's error."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no UDP port: 1 to 65535")
    return int(text)


def add_socket_options(command: argparse.ArgumentParser) -> None:
    """Where the daemon is."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("-c", "--config", type=Path, metavar="FILE", help=f"the daemon's; default {DEFAULT_PATH}")
    where.add_argument(
        "--socket", type=Path, metavar="PATH", help="its control socket, whatever the configuration says"
    )


def socket_path(asked: argparse.Namespace) -> Path:
    """The control socket that was meant. Raises DocumentError."""
    if asked.socket is not None:
        return Path(asked.socket)
    if asked.config is not None or DEFAULT_PATH.exists():
        return load(asked.config or DEFAULT_PATH).control.socket
    return ControlSettings().socket


def complain(error: Exception | str, code: int) -> int:
    """Each line of ``error`` on stderr, behind our name; returns ``code``."""
    for line in str(error).splitlines():
        sys.stderr.write(f"kinkvpn: {line}\n")
    return code


# The commands. What only some of them need is imported there: `status` is for scripts that call it often.


def run_up(asked: argparse.Namespace) -> int:
    """``kinkvpn up``."""
    configuration = load(asked.config)
    engine = engine_settings(configuration.esp.engine, os.environ)

    import trio

    from esp.errors import EspError
    from kinkvpn.config import LogFormat
    from kinkvpn.service import log
    from kinkvpn.service.daemon import Daemon
    from kinkvpn.service.obstacles import StartRefused

    log.configure(sys.stderr, level=configuration.log.level.value, as_json=configuration.log.format is LogFormat.JSON)
    try:
        trio.run(Daemon(configuration, engine).run)
    except StartRefused as refused:
        return complain(refused, CANNOT)
    except EspError as error:
        return complain(error, FAILED)
    return DONE


def run_check(asked: argparse.Namespace) -> int:
    """``kinkvpn check``."""
    configuration = load(asked.config)
    engine = engine_settings(configuration.esp.engine, os.environ)

    import trio

    from kinkvpn import view
    from kinkvpn.service import preflight
    from kinkvpn.service.engines import choose_engine, obstacle
    from kinkvpn.service.obstacles import StartRefused

    reasons: list[str] = []
    chosen = ""
    try:
        chosen = choose_engine(engine, obstacle()).headline
    except StartRefused as refused:
        reasons += refused.reasons
    reasons += preflight.check_kerberos(configuration.host)
    addresses: dict[str, str] = {}
    try:
        peers = trio.run(preflight.resolve_peers, configuration)
        addresses = {peer.name: peer.kink.address for peer in peers}
    except StartRefused as refused:
        reasons += refused.reasons
    reasons += key_log_refusals(configuration.log.keys)
    if reasons:
        return complain("\n".join(reasons), CANNOT)
    print(f"{asked.config} is good: {counted(configuration)}\n\n{view.check(configuration, addresses, chosen)}")
    return DONE


def key_log_refusals(path: Path | None) -> list[str]:
    """Why keys cannot be written where they are to be, if at all."""
    from kinkvpn.keylog import KeyLogRefused, check_key_log

    try:
        if path is not None:
            check_key_log(path)
    except KeyLogRefused as refused:
        return [str(refused)]
    return []


def counted(configuration: Configuration) -> str:
    """``1 peer, 2 policies``."""
    peers, policies = len(configuration.peers), len(configuration.policies)
    return f"{peers} peer{'s' if peers != 1 else ''}, {policies} polic{'ies' if policies != 1 else 'y'}"


def run_status(asked: argparse.Namespace) -> int:
    """``kinkvpn status``."""
    from kinkvpn import view
    from kinkvpn.service import api

    probes: dict[str, dict[str, object]] = {}
    with api.connect(socket_path(asked), ANSWER_SECONDS) as daemon:
        answer = api.request(daemon, "status")
        for peer in answer["peers"] if asked.probe else ():
            try:
                probes[peer["name"]] = api.request(daemon, "probe", peer=peer["name"])
            except api.CommandRefused as refused:
                probes[peer["name"]] = {"error": str(refused)}
        if asked.probe:
            answer = api.request(daemon, "status")  # a probe may have brought a peer back
    if asked.json:
        print(json.dumps(answer | ({"probes": probes} if asked.probe else {})))
    else:
        print(view.status(answer, {name: spoken(probe) for name, probe in probes.items()}))
    return FAILED if any("error" in probe for probe in probes.values()) else DONE


def spoken(probe: dict[str, object]) -> str:
    """What came of a probe, in words."""
    seconds = probe.get("seconds")
    return f"{seconds * 1000:.1f} ms" if isinstance(seconds, float) else str(probe.get("error"))


def run_rekey(asked: argparse.Namespace) -> int:
    """``kinkvpn rekey``: a line for each policy."""
    from kinkvpn.service import api

    with api.connect(socket_path(asked), ANSWER_SECONDS) as daemon:
        answer = api.request(daemon, "rekey", **({} if asked.peer is None else {"peer": asked.peer}))
    for policy in answer["policies"]:
        # Without it the peer has made a pair at the same time, and that is the one that stays.
        took = "" if policy["create_ms"] is None else f", CREATE took {policy['create_ms']:.1f} ms"
        print(f"{policy['name']}: spi in {policy['spi_in']} out {policy['spi_out']}, {policy['suite']}{took}")
    return DONE


def run_down(asked: argparse.Namespace) -> int:
    """``kinkvpn down``: over when the process is gone, so that the next ``up`` finds nothing in its way."""
    from kinkvpn.service import api

    with api.connect(socket_path(asked), ANSWER_SECONDS) as daemon:
        pid = api.peer_pid(daemon)
        process = os.pidfd_open(pid)
        try:
            with suppress(api.ControlUnavailable):  # it may be gone before we have read its answer
                api.request(daemon, "down")
            daemon.close()
            ended, _, _ = select.select([process], [], [], DOWN_SECONDS)
        finally:
            os.close(process)
    if not ended:
        return complain(f"the daemon, pid {pid}, still runs {DOWN_SECONDS:g} s after it was told to stop", FAILED)
    return DONE


def run_demo(asked: argparse.Namespace) -> int:
    """``kinkvpn demo``."""
    from kinkvpn.demo.command import run

    return run(as_json=asked.json, megabytes=asked.size)


def run_esp(asked: argparse.Namespace) -> int:
    """``kinkvpn esp``."""
    from kinkvpn.manual import file, printing

    if asked.peer and not asked.form:
        return complain("--peer goes with --print", CANNOT)
    manual = file.load(asked.manual)
    engine = engine_settings(manual.engine, os.environ)
    if asked.form:
        pairs = [pair.turned_about() for pair in manual.pairs] if asked.peer else manual.pairs
        for line in printing.lines(pairs, printing.Form(asked.form)):
            print(line)
        return DONE

    import trio

    from esp.errors import EspError
    from kinkvpn.manual.run import run
    from kinkvpn.service import log
    from kinkvpn.service.obstacles import StartRefused, first_leaf

    log.configure(sys.stderr, level="info", as_json=False)
    failure: KinkvpnError | EspError | None = None
    try:
        trio.run(partial(run, manual, engine, sys.stdout, as_json=asked.json))
    except* (KinkvpnError, EspError) as group:
        failure = first_leaf(group)
    if failure is None:
        return DONE
    return complain(failure, CANNOT if isinstance(failure, StartRefused) else FAILED)


def run_decode(asked: argparse.Namespace) -> int:
    """``kinkvpn decode``."""
    from kinkvpn.decode import command

    try:
        return command.run(
            asked.capture, asked.keytab, asked.ccache, ports=asked.port, as_json=asked.json, out=sys.stdout
        )
    except command.BAD_INPUT as error:
        return complain(error, CANNOT)
    except BrokenPipeError:
        abandon_output()
        return FAILED  # nobody has seen that all of it verified
