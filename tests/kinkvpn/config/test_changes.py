"""What of a configuration changes, and what of it needs a restart."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.configuration import SMALL, SOURCE, edited

from kinkvpn import config
from kinkvpn.config.changes import REACH, Changes, RestartNeeded, changes, with_names_of

NORTH = """
[[peer]]
name = "north"
principal = "kink/north.example.com@EXAMPLE.COM"
address = "192.0.2.3"
[[peer.policy]]
local = "10.1.0.0/24"
remote = ["10.3.0.0/24", "10.4.0.0/24"]
together = true
"""


def names(found: Changes) -> tuple[list[str], ...]:
    """Who is gone, replaced, altered, and new."""
    kinds = (found.replaced, found.altered, found.come)
    return (list(found.gone), *([peer.name for peer in kind] for kind in kinds))


def test_peers_are_told_apart_by_their_names() -> None:
    before = config.parse(SMALL + NORTH, SOURCE)
    assert changes(before, before) == changes(before, config.parse(SMALL + NORTH, SOURCE))
    other = edited("[[peer.policy]]", "lifetime = 60\n[[peer.policy]]")
    assert names(changes(before, config.parse(other, SOURCE))) == (["north"], [], ["east"], [])
    assert names(changes(config.parse(SMALL, SOURCE), before)) == ([], [], [], ["north"])
    alone = config.parse(SMALL.partition("[[peer]]")[0] + NORTH, SOURCE)
    assert names(changes(before, alone)) == (["east"], [], [], []), "its place in the file is nothing"


@pytest.mark.parametrize(
    ("old", "new", "replaced", "ended"),
    [
        ("[[peer.policy]]", "lifetime = 60\n[[peer.policy]]", False, set()),
        ("[[peer.policy]]", 'probe_after = 3\nsuites = "aes128-gcm16"\n[[peer.policy]]', False, set()),
        ("[[peer.policy]]", 'ipsec = "ah"\n[[peer.policy]]', False, {"east/1", "east/2"}),
        ("[[peer.policy]]", 'encapsulation = "raw"\n[[peer.policy]]', False, {"east/1", "east/2"}),
        ("10.2.0.0/24", "10.2.0.0/25", False, {"east/1"}),
        (', "fd00:2::/64"]', ', "fd00:2::/64", "10.3.0.0/24"]', False, set()),
        ('"10.2.0.0/24", "fd00:2::/64"', '"10.9.0.0/24", "fd00:2::/64", "10.3.0.0/24"', False, {"east/1"}),
        ('"east.example.com"', '"192.0.2.9"', True, set()),
        ("kink/east.", "kink/other.", True, set()),
        ("[[peer.policy]]", "port = 911\n[[peer.policy]]", True, set()),
    ],
)
def test_a_peer_is_replaced_where_it_is_another_and_a_policy_where_its_sas_are(
    old: str, new: str, replaced: bool, ended: set[str]
) -> None:
    before = config.parse(SMALL, SOURCE)
    found = changes(before, with_names_of(before, config.parse(edited(old, new), SOURCE)))
    assert names(found) == ([], ["east"] * replaced, ["east"] * (not replaced), [])
    assert found.ended == ({} if replaced else {"east": ended})


def test_every_key_of_every_section_has_been_thought_of() -> None:
    """Whoever adds one says in ``REACH`` what its change touches."""
    text = SMALL.replace("[[peer.policy]]", "iptfs_rate = 10\n[[peer.policy]]")
    found: list[str] = []

    def walk(place: str, value: object) -> None:
        if place in REACH:
            found.append(place)
        elif is_dataclass(value):
            for field in fields(value):
                walk(f"{place}.{field.name}" if place else field.name, getattr(value, field.name))
        else:
            pytest.fail(f"{place} is not in REACH")

    whole = config.parse(text, SOURCE)
    walk("", whole)
    walk("peer", whole.peers[0])
    walk("policy", whole.policies[0])
    assert sorted(found) == sorted(REACH)


SUBNETS = [f"10.{number}.0.0/16" for number in range(2, 7)]
# In the order of the file: subnet, and the key that it has.
WRITTEN = st.lists(
    st.tuples(st.sampled_from(SUBNETS), st.sampled_from(["", "lifetime = 60", 'encapsulation = "raw"'])),
    min_size=1,
    unique_by=lambda entry: entry[0],
)


def peer_of(entries: list[tuple[str, str]]) -> str:
    """Each entry a [[peer.policy]] without a name."""
    return SMALL.partition("[[peer.policy]]")[0] + "".join(
        f'[[peer.policy]]\nlocal = "10.1.0.0/24"\nremote = "{subnet}"\n{key}\n' for subnet, key in entries
    )


@given(st.lists(WRITTEN, min_size=2, max_size=4))
@settings(max_examples=10)
def test_only_policies_that_are_written_otherwise_end_wherever_they_stand(
    versions: list[list[tuple[str, str]]],
) -> None:
    parsed = [config.parse(peer_of(entries), SOURCE) for entries in versions]
    running = parsed[0]
    for before, entries, plain in zip(versions, versions[1:], parsed[1:], strict=False):
        written = with_names_of(running, plain)
        at_work = {str(policy.selector.remote): policy for policy in running.policies}
        after = {str(policy.selector.remote): policy for policy in written.policies}
        assert len({policy.name for policy in written.policies}) == len(entries)
        assert [replace(p, name="") for p in written.policies] == [replace(p, name="") for p in plain.policies]
        stay = {
            subnet for subnet, key in before if any(subnet == s and ("raw" in key) == ("raw" in k) for s, k in entries)
        }
        assert all(after[subnet].name == at_work[subnet].name for subnet in stay)
        found = changes(running, written)
        ended = {policy.name for subnet, policy in at_work.items() if subnet not in stay}
        assert found.ended == ({} if written.peers == running.peers else {"east": ended})
        assert changes(written, written).altered == ()
        running = written


def test_numbers_go_on_under_a_name_that_was_given_and_are_nobody_elses() -> None:
    def named(*remotes: str) -> config.Configuration:
        text = SMALL.replace('"10.2.0.0/24", "fd00:2::/64"', ", ".join(f'"{each}"' for each in remotes))
        text = text.replace(', "fd00:1::/64"', "")
        return config.parse(text.replace("[[peer.policy]]", '[[peer.policy]]\nname = "web"'), SOURCE)

    def at_work(running: config.Configuration) -> dict[str, str]:
        return {str(policy.selector.remote): policy.name for policy in running.policies}

    one = named("10.2.0.0/24")
    two = with_names_of(one, named("10.3.0.0/24", "10.2.0.0/24"))
    assert at_work(two) == {"10.2.0.0/24": "web", "10.3.0.0/24": "web/1"}
    three = with_names_of(two, named("10.3.0.0/24", "10.4.0.0/24"))
    assert at_work(three) == {"10.3.0.0/24": "web/1", "10.4.0.0/24": "web/2"}
    north = NORTH.replace("[[peer.policy]]", '[[peer.policy]]\nname = "web"').replace(', "10.4.0.0/24"', "")
    other = config.parse(SMALL.replace('"10.2.0.0/24"', '"10.9.0.0/24"') + north.replace("10.3.", "10.2."), SOURCE)
    assert at_work(with_names_of(two, other)) == {
        "10.9.0.0/24": "east/1",
        "fd00:2::/64": "east/2",
        "10.2.0.0/24": "web",
    }


def test_policies_of_nobody_and_the_log_level_may_change() -> None:
    before = config.parse(SMALL, SOURCE)
    text = SMALL + '[[policy]]\naction = "discard"\nremote = "10.9.0.0/24"\n[log]\nlevel = "debug"\n'
    assert names(changes(before, config.parse(text, SOURCE))) == ([], [], [], [])


def test_people_and_what_they_are_lent_may_change() -> None:
    people = '[people]\naddresses = "10.8.0.0/24"\nroutes = "10.1.0.0/24"\n{}[[people.allow]]\nwho = "{}@A.COM"\n'
    before = config.parse(SMALL + people.format("", "alice"), SOURCE)
    after = SMALL + people.format("most = 5\n", "bob").replace("10.8", "10.9")
    assert names(changes(before, config.parse(after, SOURCE))) == ([], [], [], [])
    assert names(changes(config.parse(SMALL, SOURCE), before)) == ([], [], [], [])


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("host", {"principal": '"kink/a@R"', "replay_cache": '"/x"'}),
        ("kink", {"port": "911", "listen": '"192.0.2.1"'}),
        ("esp", {"port": "4501", "engine": '"portable"', "cipher_library": '"openssl"', "queues": "2"}),
        ("tun", {"name": '"kink1"', "mtu": "1300"}),
        ("offload", {"tso": '"off"'}),
        ("control", {"socket": '"x"'}),
        ("log", {"keys": '"x"'}),
    ],
)
def test_the_rest_is_named_key_by_key(section: str, keys: dict[str, str]) -> None:
    before = config.parse(SMALL, SOURCE)
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    head, peers = SMALL.split("[[peer]]")
    kept = "".join(line for line in head.splitlines(keepends=True) if line.partition(" =")[0] not in keys)
    header = f"[{section}]\n"
    text = kept.replace(header, header + lines) if header in kept else f"{header}{lines}{kept}"
    text += f"[[peer]]{peers}"
    with pytest.raises(RestartNeeded) as needed:
        changes(before, config.parse(text, SOURCE))
    said = {line.partition(" is another one now, which takes a restart")[0] for line in str(needed.value).splitlines()}
    assert said == {f"{section}.{key}" for key in keys}
