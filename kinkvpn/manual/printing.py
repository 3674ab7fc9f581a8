"""A file of manual SAs in the words of others: Linux, Wireshark, JSON."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING

from kinkvpn.keylog import esp_sa_lines
from kinkvpn.manual import xfrm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esp.headers import HeaderRules
    from esp.sa import Endpoint, SaParameters
    from kinkvpn.manual.pair import Pair


class Form(Enum):
    """What ``--print`` can be."""

    XFRM = "xfrm"
    WIRESHARK = "wireshark"
    JSON = "json"


def lines(pairs: Sequence[Pair], form: Form) -> Iterator[str]:
    """``pairs`` in one form, keys and all, for the host that has them.

    For Linux, commands that a shell takes; for Wireshark, the file ``esp_sa`` of a profile; JSON is one object.
    """
    match form:
        case Form.XFRM:
            for reqid, pair in enumerate(pairs, 1):
                yield from xfrm.commands(pair, reqid)
        case Form.WIRESHARK:
            for pair in pairs:
                here, there = pair.local.address, pair.remote.address
                yield from esp_sa_lines(pair.outbound, "outbound", here, there)
                yield from esp_sa_lines(pair.inbound, "inbound", there, here)
        case Form.JSON:
            yield json.dumps({"pairs": [_pair(pair) for pair in pairs]}, indent=2)


def _pair(pair: Pair) -> dict[str, object]:
    sa = pair.outbound
    selector, lifetime = sa.selector, pair.outbound.lifetime
    return {
        "policy": sa.policy,
        "local": str(selector.local),
        "remote": str(selector.remote),
        "protocol": selector.protocol,
        "local_port": selector.local_port,
        "remote_port": selector.remote_port,
        "source": _endpoint(pair.local),
        "destination": _endpoint(pair.remote),
        "ipsec": sa.protocol.value,
        "suite": sa.suite.name,
        "mode": sa.mode.value,
        "encapsulation": sa.encapsulation.value,
        "esn": sa.esn,
        "replay_window": sa.replay_window,
        "headers": _headers(sa.headers),
        "lifetime": {
            "seconds": lifetime.hard_seconds,
            "packets": lifetime.hard_packets,
            "octets": lifetime.hard_octets,
        },
        "outbound": _sa(pair.outbound),
        "inbound": _sa(pair.inbound),
    }


def _headers(rules: HeaderRules) -> dict[str, object]:
    return {
        "ecn": rules.ecn.value,
        "dscp": list(rules.dscp),  # number n for inner DSCP n
        "dscp_inward": rules.dscp_inward,
        "df": rules.df.value,
        "flow_labels": rules.flow_labels,
    }


def _endpoint(endpoint: Endpoint) -> dict[str, object]:
    return {"address": endpoint.address, "port": endpoint.port}


def _sa(sa: SaParameters) -> dict[str, object]:
    key, salt, integrity_key = sa.suite.split(sa.keymat)
    return {
        "spi": f"{sa.spi:#010x}",
        "sequence": sa.sequence,
        "keymat": sa.keymat.hex(),
        "encryption_key": key.hex(),
        "salt": salt.hex(),
        "integrity_key": integrity_key.hex(),
    }
