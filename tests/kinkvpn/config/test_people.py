from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kinkvpn.admission import Rule
from kinkvpn.config.people import NOBODY, PeopleSettings, read_people
from kinkvpn.document import Document, DocumentError, Table
from kinkvpn.proto.lease import Lease

STAFF = "S-1-5-21-1004336348-1177238915-682003330-1105"
FULL = f"""
[people]
addresses = ["10.8.0.0/24", "fd00:8::/64"]
routes = "10.1.0.0/16"
dns = ["10.1.0.53"]
domains = "Example.COM"
most = 5
probe_after = 0
dead_after = 3

[people.groups]
staff = "{STAFF}"

[people.fixed]
"alice@EXAMPLE.COM" = ["10.8.0.10", "fd00:8::10"]
"bob@EXAMPLE.COM" = "10.8.0.11"

[[people.allow]]
who = ["alice@EXAMPLE.COM", "host/*@EXAMPLE.COM"]
routes = ["10.0.0.0/8", "fd00::/16"]
dns = "10.9.0.53"

[[people.allow]]
groups = ["staff", "S-1-5-32-544"]
except = "mallory@EXAMPLE.COM"
"""


def read(text: str) -> PeopleSettings:
    document = Document.parse(text, "here.toml")
    settings = read_people(Table(document, (), document.root).table("people"))
    document.raise_problems()
    return settings


def test_what_is_written_arrives() -> None:
    settings = read(FULL)
    assert settings.pool == (ip_network("10.8.0.0/24"), ip_network("fd00:8::/64"))
    assert (settings.most, settings.probe_after, settings.dead_after) == (5, None, 3.0)
    assert settings.fixed == {
        "alice@EXAMPLE.COM": (ip_address("10.8.0.10"), ip_address("fd00:8::10")),
        "bob@EXAMPLE.COM": (ip_address("10.8.0.11"),),
    }
    inherited = Lease((), (ip_network("10.1.0.0/16"),), (ip_address("10.1.0.53"),), ("example.com",))
    own = Lease((), (ip_network("10.0.0.0/8"), ip_network("fd00::/16")), (ip_address("10.9.0.53"),), ("example.com",))
    assert settings.rules == (
        Rule(("alice@EXAMPLE.COM", "host/*@EXAMPLE.COM"), frozenset(), (), own),
        Rule((), frozenset({STAFF, "S-1-5-32-544"}), ("mallory@EXAMPLE.COM",), inherited),
    )
    assert read("") == NOBODY


SMALLEST = '[people]\naddresses = "10.8.0.0/24"\nroutes = "10.1.0.0/16"\n'
ALLOW = '[[people.allow]]\nwho = "*@A.COM"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALLEST, "people.allow is missing: expected at least one [[people.allow]]"),
        ('[people]\nroutes = "10.1.0.0/16"\n' + ALLOW, "people.addresses is missing: expected a subnet to lend from"),
        ('[people]\naddresses = "10.8.0.0/24"\n' + ALLOW, "people.allow[1].routes is missing: expected the subnets"),
        (SMALLEST + "[[people.allow]]\n", 'people.allow[1].who is missing: expected whom it lets in, such as "*@EXAMP'),
        (SMALLEST + '[[people.allow]]\nwho = "alice"\n', 'who = "alice": expected a principal with its realm'),
        (SMALLEST + '[[people.allow]]\ngroups = "staff"\n', "expected a name in [people.groups], or a group's SID"),
        (SMALLEST + ALLOW + '[people.groups]\nstaff = "staff"\n', 'people.groups.staff = "staff": expected a group'),
        (SMALLEST + ALLOW + '[people.fixed]\n"a@A.COM" = []\n', "expected an address, or one of each family"),
        (SMALLEST + ALLOW + '[people.fixed]\nalice = "10.8.0.9"\n', "alice: expected a principal with its realm"),
        (SMALLEST + ALLOW + '[people.fixed]\n"*@A.COM" = "10.8.0.9"\n', "*@A.COM: expected a principal with its realm"),
        (
            SMALLEST + ALLOW + '[people.fixed]\n"a@A.COM" = "10.8.0.9"\n"b@A.COM" = ["fd00::9", "10.8.0.9"]\n',
            '= "10.8.0.9": expected one of its own; a@A.COM has this one',
        ),
        (
            SMALLEST + ALLOW + 'routes = ["fd00::/8", "10.1.0.0/16", "10.0.0.0/8"]\n',
            'routes = "10.1.0.0/16": expected subnets of which none is in another, and 10.0.0.0/8 has this one',
        ),
        (SMALLEST + ALLOW + 'whom = "x"\n', "unknown key"),
        (SMALLEST + "most = 0\n" + ALLOW, "people.most = 0: expected an integer from 1 to 10000"),
        (
            SMALLEST + ALLOW + f"dns = {[f'10.1.0.{number}' for number in range(1, 10)]}\n",
            "expected at most 8",
        ),
        (SMALLEST + 'suites = "null-sha256"\n' + ALLOW, "expected one that everybody offers: aes256-gcm16"),
        (SMALLEST + ALLOW * 257, "257 rules: expected at most 256"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(text)
    assert words in str(caught.value)
