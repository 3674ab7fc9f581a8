from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kinkvpn.admission import Rule, first_rule, lacks_groups, matches
from kinkvpn.proto.lease import Lease
from kinkvpn.proto.ports import NotAdmitted

if TYPE_CHECKING:
    from collections.abc import Sequence

STAFF = "S-1-5-21-1-2-3-1105"


def rule(who: Sequence[str] = (), groups: Sequence[str] = (), barred: Sequence[str] = ()) -> Rule:
    return Rule(tuple(who), frozenset(groups), tuple(barred), Lease(()))


@pytest.mark.parametrize(
    ("pattern", "meant", "others"),
    [
        (
            "alice@A.COM",
            ["alice@A.COM"],
            ["alice@B.COM", "Alice@A.COM", "xalice@A.COM", "alice@A.COM.B", "alice/a@A.COM"],
        ),
        ("*@A.COM", ["alice@A.COM", "@A.COM"], ["host/x@A.COM", "alice@a.com", "alice\\@A.COM@B.COM", "a\\/b@A.COM"]),
        ("host/*@A.COM", ["host/x.a.com@A.COM"], ["host@A.COM", "host/x/y@A.COM", "ghost/x@A.COM"]),
        ("host/*@*", ["host/x@A.COM", "host/x@B"], ["alice@A.COM"]),
        ("a.ice@A.COM", ["a.ice@A.COM"], ["alice@A.COM"]),
        ("*-admin@A.COM", ["alice-admin@A.COM"], ["alice@A.COM", "x-admin\n@A.COM"]),
    ],
)
def test_whom_a_pattern_means(pattern: str, meant: list[str], others: list[str]) -> None:
    assert [matches(one, [pattern]) for one in meant] == [True] * len(meant)
    assert not [one for one in others if matches(one, [pattern])]


def test_of_several_rules_the_first_that_matches_counts() -> None:
    admins, everybody = rule(["*-admin@A.COM"]), rule(["*@A.COM"])
    rules = [admins, everybody]
    assert first_rule(rules, "alice-admin@A.COM", frozenset) is admins
    assert first_rule(rules, "alice@A.COM", frozenset) is everybody
    assert first_rule(rules, "alice@B.COM", frozenset) is None


def test_both_name_and_group_have_to_be_right_where_both_are_asked_for() -> None:
    members = rule(["*@A.COM"], [STAFF, "S-1-1-0"])
    assert members.admits("alice@A.COM", lambda: frozenset({STAFF}))
    assert not members.admits("alice@A.COM", frozenset)
    assert not members.admits("alice@B.COM", lambda: frozenset({STAFF}))
    assert rule(groups=[STAFF]).admits("alice@B.COM", lambda: frozenset({STAFF, "S-1-2"}))


def test_who_is_barred_is_not_let_in_by_the_rule() -> None:
    barred = rule(["*@A.COM"], barred=["mallory@A.COM", "temp-*@A.COM"])
    assert [name for name in ("alice", "mallory", "temp-1") if barred.admits(f"{name}@A.COM", frozenset)] == ["alice"]


def test_groups_are_looked_at_only_where_they_matter() -> None:
    def unreadable() -> frozenset[str]:
        raise NotAdmitted("the PAC does not verify")

    assert rule(["*@A.COM"]).admits("alice@A.COM", unreadable)
    assert not rule(["*@B.COM"], [STAFF]).admits("alice@A.COM", unreadable)
    with pytest.raises(NotAdmitted):
        rule(["*@A.COM"], [STAFF]).admits("alice@A.COM", unreadable)


def test_who_would_be_let_in_and_has_no_groups_at_all() -> None:
    rules = [rule(["*@A.COM"], [STAFF]), rule(["bob@A.COM"])]
    assert lacks_groups(rules, "alice@A.COM", frozenset)
    assert not lacks_groups(rules, "alice@A.COM", lambda: frozenset({"S-1-5-21-1-2-3-513"}))
    assert not lacks_groups(rules, "alice@B.COM", frozenset)
    assert not lacks_groups(rules[1:], "alice@A.COM", frozenset)
