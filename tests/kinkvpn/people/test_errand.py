from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.doorstep import LENT, Gateway, asked

from kinkvpn.people import configuration
from kinkvpn.proto.lease import Lease

if TYPE_CHECKING:
    from support.kdc import Lab

pytestmark = pytest.mark.kdc


def test_a_request_that_is_lost_is_sent_again(lab: Lab, ccache: str) -> None:
    assert asked(Gateway(lab, deaf=1), ccache).tun.addresses


@pytest.mark.parametrize(
    ("gateway", "words"),
    [
        ({"lease": None}, "127.0.0.1 lends nothing to alice@KINKVPN.TEST: it answers, and lends no address"),
        ({"known": False}, "NO-PROPOSAL-CHOSEN: no rule of its lets us in"),
        ({"lease": Lease(LENT.addresses, LENT.routes[2:])}, "127.0.0.1 offers 8.8.8.0/24, which is not private: --acc"),
        ({"lease": Lease(LENT.addresses)}, "127.0.0.1 offers no routes"),
    ],
)
def test_why_there_is_none(lab: Lab, ccache: str, gateway: dict[str, Any], words: str) -> None:
    assert words in asked(Gateway(lab, **gateway), ccache)


def test_a_gateway_that_does_not_answer(lab: Lab, ccache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "PATIENCE", 0.1)
    gateway = Gateway(lab, deaf=1000)
    said = asked(gateway, ccache)
    assert said.startswith(f"127.0.0.1 (127.0.0.1) does not answer on UDP port {gateway.port}: no answer in 0.1 s to 1")
    assert said.endswith("; kinkvpn doctor 127.0.0.1 looks for the cause")
