from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import Host, Wire, policies, settings

from kinkvpn.key_exchange import KeyExchanges
from kinkvpn.proto.create import MAX_QUICK_MODES, QUICK_MODE_OCTETS
from kinkvpn.proto.events import RemoveInbound
from kinkvpn.proto.negotiation import Negotiation
from kinkvpn.proto.policies import PolicyState
from kinkvpn.wire.ipsec_doi import Group
from kinkvpn.wire.isakmp import KeyExchange
from kinkvpn.wire.kink import Isakmp, build_plaintext


class Asked:
    """A negotiation of ``count`` policies, whose SPIs are counted."""

    def __init__(
        self, count: int, *, key_exchange: bool = True, peer: dict[str, Any] | None = None, **changes: Any
    ) -> None:
        self.spis = itertools.count(0x1000)
        self.reserved: set[int] = set()
        self.settings = settings("b", *policies("a", count, **changes), **(peer or {}))
        self.states = {policy.name: PolicyState(policy) for policy in self.settings.policies}
        self.negotiation = Negotiation(
            self.settings,
            self.states,
            random=random.Random(1).randbytes,
            allocate_spi=self.allocate,
            taken=lambda now: (),
            key_exchange=KeyExchanges() if key_exchange else None,
        )

    def allocate(self) -> int:
        spi = next(self.spis)
        self.reserved.add(spi)
        return spi

    def names(self, *wanted: str, **how: Any) -> list[list[str]]:
        """Of the policies in each CREATE; what is not in one has given its SPI back."""
        commands, effects = self.negotiation.commands(wanted, **how)
        for effect in effects:
            assert isinstance(effect, RemoveInbound)
            self.reserved.remove(effect.spi)
        assert self.reserved == {asked.spi for command in commands for asked in command.quick_modes}
        return [[asked.policy.name for asked in command.quick_modes] for command in commands]


def test_others_come_along_while_there_is_room_and_never_by_themselves() -> None:
    asked = Asked(9)
    others = [f"net{number}" for number in range(9) if number != 5]
    assert asked.names("net5", along=others) == [["net5", "net0", "net1"]]
    assert Asked(9).names(along=others) == []


def test_what_met_silence_goes_alone() -> None:
    asked = Asked(4)
    asked.states["net1"].alone = True
    assert asked.names("net0", "net1", "net2", "net3") == [["net1"], ["net0", "net2", "net3"]]
    assert Asked(4).names("net0", along=["net1"]) == [["net0", "net1"]]


@pytest.mark.parametrize(
    ("peer", "changes", "singly"),
    [({"sas_per_create": 1}, {}, False), ({}, {"send_ids": False}, False), ({}, {}, True)],
)
def test_one_by_one(peer: dict[str, Any], changes: dict[str, Any], singly: bool) -> None:
    asked = Asked(3, peer=peer, **changes)
    asked.negotiation.singly = singly
    assert asked.negotiation.most == 1
    assert asked.names("net0", "net2", along=["net1"]) == [["net0"], ["net2"]]


@pytest.mark.parametrize(
    ("pfs", "key_exchange", "with_it", "expected"),
    [
        ((Group.ECP_256, Group.CURVE25519), True, True, [64]),
        ((Group.ECP_256,), True, False, []),
        ((Group.ECP_256,), False, True, []),
        ((), True, True, []),
    ],
)
def test_the_first_group_is_offered(
    pfs: tuple[Group, ...], key_exchange: bool, with_it: bool, expected: list[int]
) -> None:
    asked = Asked(1, key_exchange=key_exchange, pfs=pfs)
    (command,), _ = asked.negotiation.commands(["net0"], pfs=with_it)
    (quick_mode,) = command.quick_modes
    assert [len(p.public_value) for p in quick_mode.payloads() if isinstance(p, KeyExchange)] == expected


@given(
    st.lists(st.sampled_from([(), (Group.CURVE25519,), (Group.MODP_2048,)]), min_size=1, max_size=20),
    st.integers(1, 20),
)
def test_each_goes_out_once_and_within_the_bounds(groups: list[tuple[Group, ...]], most: int) -> None:
    asked = Asked(len(groups), peer={"sas_per_create": most})
    for state, group in zip(asked.states.values(), groups, strict=True):
        state.settings = replace(state.settings, pfs=group)
    commands, effects = asked.negotiation.commands(list(asked.states))
    assert effects == []
    assert [one.policy.name for command in commands for one in command.quick_modes] == list(asked.states)
    for command in commands:
        octets = [len(build_plaintext((Isakmp(one.payloads()),))) for one in command.quick_modes]
        assert len(octets) <= min(most, MAX_QUICK_MODES)
        assert sum(octets) <= QUICK_MODE_OCTETS or len(octets) == 1


def test_other_settings_change_how_many_are_asked_for_at_once() -> None:
    host = Host(Wire(), "a", settings("b", *policies("a", 2)))
    assert host.peer._negotiation.most == 16
    host.peer._negotiation.change(settings("b", *policies("a", 2), sas_per_create=3))
    assert host.peer._negotiation.most == 3
    host.peer._negotiation.change(settings("b", *policies("a", 2, send_ids=False)))
    assert host.peer._negotiation.most == 1
