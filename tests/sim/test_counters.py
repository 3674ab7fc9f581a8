"""What the daemon counts, by label: each message, error and outcome of a whole conversation, and nothing else."""

from __future__ import annotations

from math import inf
from typing import Any

import trio
from support.host import Host, Tunnel, World, address_of, simulate

from esp.sa import Endpoint
from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.proto.envelope import bare_reply
from kinkvpn.proto.events import Path
from kinkvpn.proto.ports import TicketRefusal
from kinkvpn.service.keying import TICKET_DEADLINE
from kinkvpn.wire.kink import KinkError, KrbError, MessageType, parse_message

WEST = frozenset({"west"})


def labelled(host: Host) -> dict[str, Any]:
    found: Any = host.keying.counted()["labelled"]
    return dict(found)


EXTENSIONS = ("kinkvpn_capabilities", "kinkvpn_inner_mtu", "kinkvpn_observed_endpoint")  # docs/extensions.md


def test_a_conversation_from_create_to_delete() -> None:
    """A 3-way CREATE, a STATUS, both ended by DELETE, each message once on its way."""

    async def scenario(world: World) -> None:
        west, east = await world.pair([Tunnel(0, boot=WEST, nonces=frozenset({"east"}))])
        await world.wait_at_rest(within=5)
        await west.keying.probe("east")
        await west.keying.close(5.0)
        told = {"kinkvpn_capabilities": 2, "kinkvpn_inner_mtu": 2, "kinkvpn_observed_endpoint": 1}
        assert labelled(west) == {
            "exchanges": {"create.completed": 1, "delete.completed": 1, "status.completed": 1},
            "messages_received": {"reply": 3},
            "messages_sent": {"ack": 1, "create": 1, "delete": 1, "status": 1},
            "notifies_received": dict.fromkeys(EXTENSIONS, 2),
            "notifies_sent": told,
            "tickets": {"ready": 3},
        }
        assert labelled(east) == {
            "answers": {"create.granted_3way": 1, "delete.granted": 1, "status.granted": 1},
            "messages_received": {"ack": 1, "create": 1, "delete": 1, "status": 1},
            "messages_sent": {"reply": 3},
            "notifies_received": told,
            "notifies_sent": dict.fromkeys(EXTENSIONS, 2),
        }

    simulate(scenario, 1)


def test_how_commands_fail() -> None:
    """East does not know the policy; then nobody hears west."""

    async def scenario(world: World) -> None:
        west, east = await world.start("west", [Tunnel(0)]), await world.start("east", [Tunnel(1)])
        west.emit(west.tunnels["tunnel0"], b"x")
        await world.wait_told("create_failed", "west", within=5)
        world.network.cut.add((address_of("west"), address_of("east")))
        await trio.sleep(2)
        west.emit(west.tunnels["tunnel0"], b"x")
        await world.wait_told("create_failed", "west", times=2, within=60)
        found = labelled(west)
        assert found["exchanges"] == {"create.failed.refused": 1, "create.failed.silence": 1}
        assert found["notifies_received"] == {"no_proposal_chosen": 1}
        assert found["messages_sent"]["create"] == 1 + 7
        assert labelled(east)["answers"] == {"create.refused": 1}
        assert labelled(east)["notifies_sent"] == {"no_proposal_chosen": 1}

    simulate(scenario, 2)


def test_what_the_kdc_says_is_counted() -> None:
    async def scenario(world: World) -> None:
        west = await world.start("west", [Tunnel(0, boot=WEST)], kdc_latency=lambda: inf)
        await trio.sleep(TICKET_DEADLINE + 0.1)
        assert labelled(west)["tickets"] == {"unavailable": 1}
        assert labelled(west)["exchanges"] == {"create.failed.no_ticket": 1}

        def unknown() -> float:
            raise TicketUnavailable(TicketRefusal("no principal kink/nowhere", 7))

        west.kdc_latency = unknown
        await world.wait_told("create_failed", "west", times=2, within=5)
        assert labelled(west)["tickets"] == {"unavailable": 1, "7": 1}

    simulate(scenario, 3)


def test_errors_that_nobody_vouches_for_are_counted_by_code_within_fixed_labels() -> None:
    async def scenario(world: World) -> None:
        west, _ = await world.pair([Tunnel(0, boot=WEST)])
        world.network.cut.add((address_of("east"), address_of("west")))
        await world.wait_until(lambda: bool(labelled(west).get("messages_sent")), within=5)
        xid, path = (
            parse_message(world.network.sent_of(MessageType.CREATE)[0].datagram).xid,
            Path(Endpoint(address_of("east"), 910)),
        )
        for code in range(1000):
            west.keying.receive(bare_reply(xid, KinkError(2**32 - 1 - code)), path)
        west.keying.receive(bare_reply(xid, KinkError(2)), path)
        west.keying.receive(bare_reply(xid, KrbError(b"nonsense")), path)
        west.keying.receive(b"no message at all", path)
        found = labelled(west)
        assert found["kink_errors_received"] == {"other": 1000, "invdoi": 1}
        assert found["krb_errors_received"] == {"unreadable": 1}
        assert found["messages_received"] == {"reply": 1002, "unreadable": 1}
        assert west.counters()["unauthenticated_error"] == 1002
        assert "create.completed" not in found.get("exchanges", {})

    simulate(scenario, 4)
