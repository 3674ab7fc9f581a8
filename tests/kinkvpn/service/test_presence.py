"""Who is there, by the SAs that stand."""

from __future__ import annotations

from kinkvpn.service.presence import Presence


def test_a_peer_is_there_from_its_first_sa_to_its_last() -> None:
    told: list[tuple[str, bool]] = []
    presence: Presence[str] = Presence(lambda peer, come: told.append((peer, come)))
    presence.installed("east", "east/1", 0x1000)
    presence.installed("east", "east/1", 0x1000)  # a message that came twice
    presence.installed("east", "east/1", 0x1001)  # a rekey: the new one first
    presence.removed("east/1", 0x1000)
    presence.installed("west", "west/1", 0x1000)
    presence.removed("east/2", 0x1001)  # there is none such
    assert told == [("east", True), ("west", True)]
    presence.removed("east/1", 0x1001)
    presence.removed("east/1", 0x1001)
    presence.installed("east", "east/1", 0x1002)
    assert told[2:] == [("east", False), ("east", True)]
