from __future__ import annotations

import logging
from typing import Any

from kinkvpn.service.ration import MOST_CAUSES, MOST_EVENTS, OF_ALL, OF_ONE, OF_STRANGERS, Ration

BURST = int(OF_ONE.burst)


class Log:
    """Two handlers with one ration between them, as a daemon has them: stderr, and those who follow events."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ration = Ration(lambda: self.now)
        self.told: list[dict[str, Any]] = []

    def tell(self, event: str, level: int = logging.INFO, **fields: object) -> bool:
        """Whether it was told, to both or to neither."""
        record = logging.LogRecord("kinkvpn.service.keying", level, "", 0, event, None, None)
        record.fields = fields
        return self.pass_on(record)

    def pass_on(self, record: logging.LogRecord) -> bool:
        passed = self.ration.filter(record)
        assert self.ration.filter(record) is passed
        if passed:
            self.told.append(getattr(record, "fields", {}))
        return passed


def test_what_one_peer_does_in_a_loop_is_counted_and_told_now_and_then() -> None:
    log = Log()
    assert sum(log.tell("peer_dead", peer="east") for _ in range(1000)) == BURST
    assert all("suppressed" not in fields for fields in log.told)
    # Nobody else's lines are fewer for that, nor others about the same peer.
    assert log.tell("peer_dead", peer="west")
    assert log.tell("peer_restarted", peer="east")
    assert log.tell("sa_established", peer="east", policy="east/1")
    log.now += 1 / OF_ONE.per_second
    assert log.tell("peer_dead", peer="east")
    assert log.told[-1] == {"peer": "east", "suppressed": 1000 - BURST}
    log.now += 1 / OF_ONE.per_second
    assert log.tell("peer_dead", peer="east")
    assert log.told[-1] == {"peer": "east"}


def test_each_policy_of_a_peer_has_lines_of_its_own_and_each_place_that_it_is_at_has_not() -> None:
    log = Log()
    assert all(log.tell("sa_established", peer="east", policy=f"east/{number}") for number in range(2 * BURST))
    told = [log.tell("endpoint_moved", peer="east", address=f"198.51.100.{number}") for number in range(2 * BURST)]
    assert told == [True] * BURST + [False] * BURST


def test_strangers_have_one_measure_for_all_the_places_that_they_forge() -> None:
    log = Log()
    sources = [f"10.{number >> 8}.{number & 255}.1" for number in range(5000)]
    assert sum(log.tell("ap_request_refused", source=source) for source in sources) == OF_STRANGERS.burst
    assert log.tell("command_refused", peer="east")
    log.now += 1 / OF_STRANGERS.per_second
    assert log.tell("ap_request_refused", source="192.0.2.1")
    assert not log.tell("ap_request_refused", source="192.0.2.2")


def test_a_site_of_ipv6_is_one_place() -> None:
    log = Log()
    assert sum(log.tell("ap_request_refused", source=f"2001:db8::{number:x}") for number in range(90)) == BURST


def test_principals_of_a_realm_that_makes_them_up() -> None:
    log = Log()
    names = [f"{number}@EVIL.EXAMPLE" for number in range(3 * MOST_CAUSES)]
    assert sum(log.tell("command_refused", peer=name) for name in names) == OF_ALL.burst
    assert len(log.ration._causes) == MOST_CAUSES
    # What was left out of those who are forgotten is in a line all the same.
    log.now += 1 / OF_ALL.per_second
    assert log.tell("command_refused", peer="somebody")
    assert log.told[-1]["suppressed"] == len(names) - OF_ALL.burst - (MOST_CAUSES - 1)


def test_who_debugs_has_all_of_it() -> None:
    log = Log()
    assert all(log.tell("send_failed", logging.DEBUG, address="192.0.2.1") for _ in range(3 * BURST))


def test_what_libraries_write_counts_together_by_logger() -> None:
    log = Log()
    records = [logging.LogRecord("hypercorn.error", logging.WARNING, "", 0, f"{n}", None, None) for n in range(999)]
    assert sum(map(log.pass_on, records)) == BURST
    for number in range(2 * MOST_EVENTS):
        log.pass_on(logging.LogRecord(f"library{number}", logging.WARNING, "", 0, "once", None, None))
    assert len(log.ration._events) == MOST_EVENTS
