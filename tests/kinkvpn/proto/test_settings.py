from __future__ import annotations

from support.kinkhosts import policy, settings

from esp.sa import Encapsulation, Mode
from esp.suite import DEFAULT_SUITES
from kinkvpn.proto.settings import PrfForm, Start


def test_what_an_operator_need_not_say() -> None:
    plain = policy()
    assert plain.suites == DEFAULT_SUITES
    assert (plain.mode, plain.encapsulation) == (Mode.TUNNEL, Encapsulation.UDP)
    assert plain.lifetime_seconds == 8 * 3600
    assert plain.replay_window == 8192
    assert plain.start is Start.DEMAND
    assert plain.send_ids
    assert not plain.responder_nonce
    assert settings("b", plain).prf is PrfForm.RFC3961
