"""What of a configuration changes, and what of it needs a restart."""

from __future__ import annotations

import pytest
from support.configuration import SMALL, SOURCE, edited

from kinkvpn import config
from kinkvpn.config.changes import RestartNeeded, changes

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


def test_peers_are_told_apart_by_their_names() -> None:
    before = config.parse(SMALL + NORTH, SOURCE)
    assert changes(before, before) == changes(before, config.parse(SMALL + NORTH, SOURCE))
    other = edited("[[peer.policy]]", "lifetime = 60\n[[peer.policy]]")
    found = changes(before, config.parse(other, SOURCE))
    assert (found.gone, [peer.name for peer in found.changed], found.come) == (("north",), ["east"], ())
    found = changes(config.parse(SMALL, SOURCE), before)
    assert (found.gone, found.changed, [peer.name for peer in found.come]) == ((), (), ["north"])
    alone = config.parse(SMALL.partition("[[peer]]")[0] + NORTH, SOURCE)
    found = changes(before, alone)
    assert (found.gone, found.changed, found.come) == (("east",), (), ()), "its place in the file is nothing"


def test_policies_of_nobody_and_the_log_level_may_change() -> None:
    before = config.parse(SMALL, SOURCE)
    text = SMALL + '[[policy]]\naction = "discard"\nremote = "10.9.0.0/24"\n[log]\nlevel = "debug"\n'
    found = changes(before, config.parse(text, SOURCE))
    assert (found.gone, found.changed, found.come) == ((), (), ())


def test_who_is_let_in_may_change_and_what_they_are_lent_from_may_not() -> None:
    people = '[people]\naddresses = "10.8.0.0/24"\nroutes = "10.1.0.0/24"\n{}[[people.allow]]\nwho = "{}@A.COM"\n'
    before = config.parse(SMALL + people.format("", "alice"), SOURCE)
    assert changes(before, config.parse(SMALL + people.format("most = 5\n", "bob"), SOURCE)).come == ()
    with pytest.raises(RestartNeeded, match=r"^people\.addresses is another one now"):
        changes(before, config.parse(SMALL + people.format("", "alice").replace("10.8", "10.9"), SOURCE))


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("host", {"principal": '"kink/a@R"', "kdc_timeout": "1"}),
        ("kink", {"port": "911", "listen": '"192.0.2.1"'}),
        ("esp", {"port": "4501", "engine": '"portable"', "cipher_library": '"openssl"', "queues": "2"}),
        ("tun", {"name": '"kink1"', "mtu": "1300"}),
        ("offload", {"tso": '"off"'}),
        ("control", {"socket": '"x"'}),
        ("log", {"format": '"json"', "keys": '"x"'}),
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
