"""Addresses and routes: there while the context holds, gone after it, after a failure halfway, and after a crash.

Everything happens in a network namespace of a child process of the test, so that the host's is never touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.root

PRELUDE = """
import ctypes, dataclasses, ipaddress, json, os, signal, subprocess, sys
import pytun, trio
CLONE_NEWNET = 0x40000000
assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0
from esp.sa import Endpoint
from kinkvpn.service.netconf import NetworkConfiguration, NetworkPlan, NetworkRefused
from kinkvpn.service.rules import ANY, RoutingRule, Way, own_rules
device = pytun.TunTapDevice(name="kink0", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
nets = lambda *texts: tuple(map(ipaddress.ip_network, texts))
hosts = lambda *texts: tuple(map(ipaddress.ip_interface, texts))
def ip(*arguments):
    shown = subprocess.run(["ip", "-j", *arguments], stdout=subprocess.PIPE, check=True).stdout
    return json.loads(shown or "[]")
def routes():
    return ip("-4", "route", "show", "dev", "kink0") + ip("-6", "route", "show", "dev", "kink0")
def state():
    (link,) = ip("address", "show", "dev", "kink0")
    return {
        "up": "UP" in link["flags"], "mtu": link["mtu"],
        "addresses": sorted(f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]),
        "tentative": [a["local"] for a in link["addr_info"] if a.get("tentative")],
        "routes": sorted(r["dst"] for r in routes() if r.get("protocol") != "kernel"),
    }
def route_elsewhere(subnet):
    links = "link add other type veth peer name far", "link set far up", "link set other up"
    for command in (*links, f"route add {subnet} dev other"):
        subprocess.run(["ip", *command.split()], check=True)
addresses = hosts("10.1.0.1/24", "fd00:1::1/64")
def rules():
    return [r for f in ("-4", "-6") for r in ip(f, "-d", "rule", "show") if 910 <= r["priority"] < 32766]
def way(*arguments):
    (found,) = ip("route", "get", *arguments)
    return found["dev"]
PLAN = NetworkPlan("kink0", 1400, addresses, nets("10.2.0.0/24", "fd00:2::/64", "0.0.0.0/0"))
"""

BARE = {"up": False, "mtu": 1400, "addresses": [], "tentative": [], "routes": []}


def in_namespace(script: str) -> list[dict[str, object]]:
    """Run ``script`` in its own network namespace; what it printed, one JSON value a line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_plan_holds_inside_and_is_undone_after() -> None:
    inside, after, again = in_namespace("""
        async def main():
            async with NetworkConfiguration(PLAN):
                print(json.dumps(state()))
            print(json.dumps(state()))
            async with NetworkConfiguration(PLAN):
                print(json.dumps(state()))
        trio.run(main)
    """)
    assert (
        inside
        == again
        == {
            "up": True,
            "mtu": 1400,
            "addresses": ["10.1.0.1/24", "fd00:1::1/64"],
            "tentative": [],
            "routes": ["10.2.0.0/24", "default", "fd00:2::/64"],
        }
    )
    assert after == BARE


def test_the_mtu_towards_a_peer_is_that_of_its_routes_and_goes_with_them() -> None:
    """Only what the plan routes; IPv6 knows nothing below 1,280; a second word takes the place of the first."""
    limited, again, after = in_namespace("""
        def mtus():
            return {route["dst"]: route["metrics"][0]["mtu"] for route in routes() if "metrics" in route}
        async def main():
            async with NetworkConfiguration(PLAN) as network:
                await network.limit_mtu(nets("10.2.0.0/24", "fd00:2::/64", "10.9.0.0/24"), 1200)
                print(json.dumps(mtus()))
                await network.limit_mtu(nets("10.2.0.0/24", "fd00:2::/64"), 1390)
                print(json.dumps(mtus()))
            print(json.dumps(state()))
        trio.run(main)
    """)
    assert limited == {"10.2.0.0/24": 1200, "fd00:2::/64": 1280}
    assert again == {"10.2.0.0/24": 1390, "fd00:2::/64": 1390}
    assert after == BARE


def test_a_route_that_went_is_no_reason_to_end() -> None:
    assert in_namespace("""
        import logging
        async def main():
            async with NetworkConfiguration(PLAN) as network:
                logging.disable()
                subprocess.run(["ip", "link", "set", "dev", "kink0", "down"], check=True)
                await network.limit_mtu(nets("10.2.0.0/24"), 1200)
        trio.run(main)
        print(json.dumps({}))
    """) == [{}]


def test_no_descriptor_for_netlink_is_no_reason_to_end() -> None:
    assert in_namespace("""
        import logging, os, resource
        async def main():
            async with NetworkConfiguration(PLAN) as network:
                logging.disable()
                await network.limit_mtu(nets("10.2.0.0/24"), 1200)
                limits = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
                await network.limit_mtu(nets("10.2.0.0/24"), 1300)
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        trio.run(main)
        print(json.dumps({}))
    """) == [{}]


def test_it_is_undone_when_cancelled() -> None:
    (after,) = in_namespace("""
        async def main():
            with trio.CancelScope() as scope:
                async with NetworkConfiguration(PLAN):
                    scope.cancel()
                    await trio.sleep_forever()
            print(json.dumps(state()))
        trio.run(main)
    """)
    assert after == BARE


def test_a_failure_halfway_undoes_what_was_done_and_names_the_route_in_the_way() -> None:
    failed, after = in_namespace("""
        route_elsewhere("10.2.0.0/24")
        async def main():
            try:
                async with NetworkConfiguration(PLAN):
                    pass
            except NetworkRefused as refused:
                print(json.dumps(str(refused)))
            print(json.dumps(state()))
        trio.run(main)
    """)
    assert failed == "route to 10.2.0.0/24 into kink0: File exists: it goes to other already"
    assert after == BARE


@pytest.mark.parametrize("outer", ["10.2.0.9", "fd00:2::9"])
def test_a_peer_inside_its_own_tunnel_is_refused(outer: str) -> None:
    failed, after = in_namespace(f"""
        import dataclasses
        async def main():
            try:
                async with NetworkConfiguration(dataclasses.replace(PLAN, outside=("{outer}",))):
                    pass
            except NetworkRefused as refused:
                print(json.dumps(str(refused)))
            print(json.dumps(state()))
        trio.run(main)
    """)
    assert str(failed).startswith(f"the peer at {outer} would be reached through kink0 itself")
    assert after == BARE


def test_a_peer_with_a_way_of_its_own_or_none_is_no_loop() -> None:
    (inside,) = in_namespace("""
        import dataclasses
        route_elsewhere("192.0.2.2")
        plan = dataclasses.replace(PLAN, outside=("192.0.2.2", "2001:db8::1"))
        async def main():
            async with NetworkConfiguration(plan):
                print(json.dumps(state()["up"]))
        trio.run(main)
    """)
    assert inside is True


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ('NetworkPlan("kink9", 1400)', "there is no device kink9"),
        ('NetworkPlan("kink0", 70000)', "kink0 up with an MTU of 70000: Invalid argument"),
        ('NetworkPlan("kink0", 1000, hosts("fd00::1/64"))', "address fd00::1/64 on kink0: "),
    ],
)
def test_what_the_kernel_refuses_is_named(plan: str, expected: str) -> None:
    (failed,) = in_namespace(f"""
        async def main():
            try:
                async with NetworkConfiguration({plan}):
                    pass
            except NetworkRefused as refused:
                print(json.dumps(str(refused)))
        trio.run(main)
    """)
    assert str(failed).startswith(expected)


def test_a_crash_leaves_nothing() -> None:
    before, after = in_namespace("""
        device.close()
        shown = lambda: [ip("link"), ip("-4", "route"), ip("-6", "route")]
        before = shown()
        child = os.fork()
        if not child:
            device = pytun.TunTapDevice(name="kink0", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
            async def main():
                async with NetworkConfiguration(PLAN):
                    assert shown() != before
                    os.kill(os.getpid(), signal.SIGKILL)
            trio.run(main)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        print(json.dumps(before)); print(json.dumps(shown()))
    """)
    assert before == after


def test_what_was_protected_goes_nowhere_without_the_device_where_somebody_wants_it_so() -> None:
    """As docs/configuration.md has it, with routes in the main table and with rules; SIGKILL is no different."""
    before, during, after = in_namespace("""
        route_elsewhere("0.0.0.0/0")
        subprocess.run(["ip", "-6", "route", "add", "default", "dev", "other"], check=True)
        for command in (
            "route add blackhole 10.2.0.0/24 metric 4294967295",
            "-6 route add blackhole fd00:2::/64 metric 4294967295",
            "rule add pref 32000 to 10.3.0.0/24 blackhole",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        second = pytun.TunTapDevice(name="kink1", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
        def ways():
            found = {}
            for address in ("10.2.0.9", "fd00:2::9", "10.3.0.9", "10.4.0.9"):
                done = subprocess.run(["ip", "-j", "route", "get", address], capture_output=True)
                found[address] = json.loads(done.stdout)[0]["dev"] if done.returncode == 0 else "nowhere"
            return found
        plain = NetworkPlan("kink0", 1400, addresses, nets("10.2.0.0/24", "fd00:2::/64"))
        ruled = NetworkPlan("kink1", 1400, routes=nets("10.3.0.0/24"), rules=own_rules([Endpoint("0.0.0.0", 4500)]))
        async def main():
            print(json.dumps(ways()))
            async with NetworkConfiguration(plain), NetworkConfiguration(ruled):
                print(json.dumps(ways()))
                device.close()
                second.close()
                print(json.dumps(ways()))
        trio.run(main)
    """)
    assert (
        before == after == {"10.2.0.9": "nowhere", "fd00:2::9": "nowhere", "10.3.0.9": "nowhere", "10.4.0.9": "other"}
    )
    assert during == {"10.2.0.9": "kink0", "fd00:2::9": "kink0", "10.3.0.9": "kink1", "10.4.0.9": "other"}


# Everything is protected, the peer's outer address included: its ESP, KINK and one port of one host go past the tunnel.
RULED = """
        for command in (
            "link add other type veth peer name far", "link set far up", "link set other up",
            "address add 192.0.2.1/24 dev other", "route add default via 192.0.2.254",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        sockets = [Endpoint("0.0.0.0", 4500), Endpoint("192.0.2.1", 910), Endpoint("::", 4500)]
        past = RoutingRule(ipaddress.ip_network("10.1.0.0/24"), ANY[4], 6, None, (8000, 8010))
        within = RoutingRule(ANY[4], ipaddress.ip_network("198.51.100.7/32"), way=Way.TUNNEL)
        RULED = NetworkPlan(
            "kink0", 1400, hosts("10.1.0.1/24"), nets("0.0.0.0/0"), ("192.0.2.2",), (*own_rules(sockets), within, past)
        )
"""


TAKEN = "kink0 with routes in table 910: give one of the two another table, further away than there are rules"


def test_with_rules_the_routes_have_a_table_of_their_own_and_all_is_undone() -> None:
    during, listed, after, left = in_namespace(
        RULED
        + """
        async def main():
            async with NetworkConfiguration(RULED):
                print(json.dumps([*(ip("route", "show", "table", table) for table in ("910", "911")), routes()]))
                print(json.dumps(rules()))
            print(json.dumps(rules()))
            print(json.dumps(ip("route", "show", "default")))
        trio.run(main)
    """
    )
    ours, forced, main = during
    assert [(route["dst"], route["dev"]) for route in ours] == [("default", "kink0")]
    assert [(route["dst"], route["dev"]) for route in forced] == [("default", "kink0")]
    assert {route["dst"] for route in main} == {"10.1.0.0/24"}, "what its address brought"
    assert [rule["priority"] for rule in listed] == [910, 911, 912, 913, 914, 915]
    shown = [{key: value for key, value in rule.items() if key not in ("priority", "protocol")} for rule in listed]
    assert shown == [
        {"src": "all", "dst": "127.0.0.1", "ipproto": "udp", "table": "main"},
        {"src": "all", "iif": "lo", "ipproto": "udp", "sport": 4500, "table": "main"},
        {"src": "192.0.2.1", "iif": "lo", "ipproto": "udp", "sport": 910, "table": "main"},
        {"src": "all", "dst": "198.51.100.7", "table": "911"},
        {"src": "10.1.0.0", "srclen": 24, "ipproto": "tcp", "dport_start": 8000, "dport_end": 8010, "table": "main"},
        {"src": "all", "table": "910"},
    ]
    assert after == []
    assert [route["dev"] for route in left] == ["other"]


def test_what_is_ours_or_named_goes_past_the_tunnel_and_nothing_else() -> None:
    """Strict reverse path filtering too takes the peer's ESP from where it comes."""
    (ways,) = in_namespace(
        RULED
        + """
        for name in ("all", "other"):
            with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w") as file:
                file.write("1")
        peer, port = ["192.0.2.2"], ["ipproto", "udp", "dport", "4500", "sport"]
        tcp = ["203.0.113.1", "from", "10.1.0.1", "ipproto", "tcp", "dport"]
        def taken(port):
            arguments = ["ip", "route", "get", "192.0.2.1", "from", "192.0.2.2", "iif", "other", "ipproto", "udp"]
            ports = ["sport", "4500", "dport", port]
            return subprocess.run([*arguments, *ports], capture_output=True).returncode == 0
        async def main():
            async with NetworkConfiguration(RULED):
                print(json.dumps({
                    "esp": way(*peer, *port, "4500"), "kink": way(*peer, "from", "192.0.2.1", *port, "910"),
                    "other udp": way(*peer, *port, "4501"), "tcp": way(*tcp, "7999"), "named tcp": way(*tcp, "8000"),
                    "its last": way(*tcp, "8010"), "beyond": way(*tcp, "8011"),
                    "ahead of it": way("198.51.100.7", *tcp[1:], "8000"), "anything": way("8.8.8.8"),
                    "esp arrives": taken("4500"), "others do not": taken("4501"),
                }))
        trio.run(main)
    """
    )
    tunnel, past = "kink0", "other"
    assert ways == {
        "esp": past,
        "kink": past,
        "other udp": tunnel,
        "tcp": tunnel,
        "named tcp": past,
        "its last": past,
        "beyond": tunnel,
        "ahead of it": tunnel,
        "anything": tunnel,
        "esp arrives": True,
        "others do not": False,
    }


def test_rules_that_outlive_a_crash_change_no_way_and_go_at_the_next_start() -> None:
    before, stale, after_crash, without = in_namespace(
        RULED
        + """
        device.close()
        destinations = (["192.0.2.2"], ["8.8.8.8"], ["203.0.113.1", "ipproto", "tcp", "dport", "8000"])
        ways = lambda: [way(*destination) for destination in destinations]
        print(json.dumps(ways()))
        child = os.fork()
        if not child:
            device = pytun.TunTapDevice(name="kink0", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
            async def main():
                async with NetworkConfiguration(dataclasses.replace(RULED, routes=nets("0.0.0.0/0", "::/0"))):
                    os.kill(os.getpid(), signal.SIGKILL)
            trio.run(main)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        print(json.dumps(len(rules())))
        print(json.dumps(ways()))
        device = pytun.TunTapDevice(name="kink0", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
        async def main():
            async with NetworkConfiguration(NetworkPlan("kink0", 1400)):
                print(json.dumps(rules()))
        trio.run(main)
    """
    )
    assert before == after_crash == ["other"] * 3
    assert stale == 8, "two of them are IPv6's"
    assert without == []


def test_the_rules_of_somebody_who_lives_are_let_alone() -> None:
    """Without them what he protects would go out in the clear, and he would not notice."""
    before, refused, after = in_namespace(
        RULED
        + """
        second = pytun.TunTapDevice(name="kink1", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
        theirs = dataclasses.replace(RULED, device="kink1", addresses=(), outside=())
        plain = NetworkPlan("kink1", 1400, routes=nets("10.9.0.0/24"))
        async def main():
            async with NetworkConfiguration(RULED):
                print(json.dumps(rules()))
                told = []
                for plan in (theirs, dataclasses.replace(theirs, table=912), dataclasses.replace(theirs, table=908)):
                    try:
                        async with NetworkConfiguration(plan):
                            pass
                    except NetworkRefused as error:
                        told.append(str(error))
                print(json.dumps(told))
                async with NetworkConfiguration(plain), NetworkConfiguration(dataclasses.replace(theirs, table=1000)):
                    pass
                print(json.dumps(rules()))
        trio.run(main)
    """
    )
    assert before == after
    assert len(before) == 6
    assert refused == [
        f"routing rules from {table} on: priority {first} is taken, for {TAKEN}"
        for table, first in ((910, 910), (912, 912), (908, 910))
    ]


def test_the_mtu_towards_a_peer_is_that_of_its_routes_in_their_own_table_too() -> None:
    (limited,) = in_namespace(
        RULED
        + """
        async def main():
            async with NetworkConfiguration(RULED) as network:
                await network.limit_mtu(nets("0.0.0.0/0"), 1200)
                print(json.dumps([ip("route", "show", "table", "910"), ip("route", "show", "default")]))
        trio.run(main)
    """
    )
    (ours,), (main,) = limited
    assert ours["metrics"] == [{"mtu": 1200}]
    assert "metrics" not in main


def test_a_host_speaks_to_another_from_the_address_that_the_policy_names() -> None:
    """Not from the one that its TUN device has, and after the MTU was limited neither."""
    before, ways, after = in_namespace(
        """
        for command in (
            "link add other type veth peer name far", "link set far up", "link set other up",
            "address add 198.51.100.1/24 dev other", "address add 192.0.2.1/24 dev other",
            "address add 2001:db8::1/64 dev other nodad",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        peers = nets("192.0.2.2/32", "2001:db8::2/128")
        ours = dict(zip(peers, ("192.0.2.1", "2001:db8::1")))
        sockets = [Endpoint("0.0.0.0", 4500), Endpoint("::", 4500)]
        outside = tuple(str(peer.network_address) for peer in peers)
        HOSTS = NetworkPlan("kink0", 1400, addresses, peers, outside, own_rules(sockets), sources=ours)
        def tables():
            return ip("-4", "route", "show", "table", "910") + ip("-6", "route", "show", "table", "910")
        def ways():
            found = [ip("route", "get", address)[0] for address in outside]
            return [(one["dev"], one["prefsrc"]) for one in found]
        async def main():
            print(json.dumps([way(*outside[:1]), way(*outside[1:])]))
            async with NetworkConfiguration(HOSTS) as network:
                before = ways()
                await network.limit_mtu(peers, 1300)
                print(json.dumps([before, ways()]))
            print(json.dumps(tables()))
        trio.run(main)
    """
    )
    assert before == ["other", "other"]
    assert ways == [[["kink0", "192.0.2.1"], ["kink0", "2001:db8::1"]]] * 2
    assert after == []


def test_a_source_that_is_no_address_of_this_host_is_told() -> None:
    (said,) = in_namespace("""
        peers = nets("192.0.2.2/32")
        plan = NetworkPlan("kink0", 1400, addresses, peers, sources={peers[0]: "192.0.2.1"})
        async def main():
            try:
                async with NetworkConfiguration(plan):
                    pass
            except NetworkRefused as refused:
                print(json.dumps(str(refused)))
        trio.run(main)
    """)
    assert said == "route to 192.0.2.2/32 into kink0 from 192.0.2.1: Invalid argument: it is no address of this host"


@pytest.mark.parametrize("ruled", [False, True])
def test_strict_reverse_path_filtering_keeps_out_what_should_have_been_protected(ruled: bool) -> None:
    """What docs/decisions.md leaves to it: a packet in the clear from a subnet that is routed into the tunnel."""
    (taken,) = in_namespace(f"""
        import dataclasses
        subprocess.run("ip link add other type veth peer name far; ip link set far up; ip link set other up;"
            "ip address add 192.0.2.1/24 dev other; ip route add default via 192.0.2.254", shell=True, check=True)
        past = RoutingRule(ANY[4], ipaddress.ip_network("10.2.0.0/24"), 6, None, (80, 80))
        plan = dataclasses.replace(PLAN, routes=nets("10.2.0.0/24"), rules=(past,) if {ruled} else ())
        def arrives(source, *ports):
            arguments = ["ip", "route", "get", "10.1.0.1", "from", source, "iif", "other", *ports]
            return subprocess.run(arguments, capture_output=True).returncode == 0
        async def main():
            async with NetworkConfiguration(plan):
                for strict in "01":
                    for name in ("all", "other"):
                        with open(f"/proc/sys/net/ipv4/conf/{{name}}/rp_filter", "w") as file:
                            file.write(strict)
                    found.append([
                        arrives("10.2.0.5"), arrives("10.2.0.5", "ipproto", "tcp", "sport", "80", "dport", "9"),
                        arrives("203.0.113.1"),
                    ])
        found = []
        trio.run(main)
        print(json.dumps(found))
    """)
    assert taken == [[True, True, True], [False, ruled, True]]


def test_fragments_of_what_is_protected_are_not_forwarded_in_the_clear() -> None:
    """They show the kernel no port, by which the rest goes past the tunnel (RFC 4301 §7.4)."""
    (ways,) = in_namespace(
        RULED
        + """
        import select, socket
        from scapy.layers.inet import IP, UDP, fragment
        from esp.policy import Action, Policy, Selector
        from kinkvpn.service.rules import policy_rules
        inside = pytun.TunTapDevice(name="inside", flags=pytun.IFF_TUN | pytun.IFF_NO_PI)
        for command in ("link set inside up", "neigh add 192.0.2.254 lladdr 02:00:00:00:00:01 dev other"):
            subprocess.run(["ip", *command.split()], check=True)
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        wire.bind(("far", 0x0800))
        network = ipaddress.ip_network("10.2.0.0/16")
        rest = Selector(ANY[4], network)
        web = dataclasses.replace(rest, protocol=17, remote_port=443)
        policies = [Policy("web", web), Policy("rest", rest, Action.BYPASS)]
        plan = NetworkPlan("kink0", 1400, routes=(network,), rules=policy_rules(policies))
        def taken(packet):
            inside.write(bytes(packet))
            (found, *_), _, _ = select.select([device, wire], [], [], 10)
            read = IP(device.read(2000) if found is device else wire.recv(2000))
            assert read.id == packet.id, read
            return "tunnel" if found is device else "past"
        def ways(port, octets):
            packet = IP(src="10.1.0.2", dst="10.2.0.1", id=port) / UDP(sport=1024, dport=port) / bytes(octets)
            return [taken(each) for each in fragment(packet, 800)]
        async def main():
            async with NetworkConfiguration(plan):
                print(json.dumps({
                    "protected": ways(443, 100), "in fragments": ways(443, 2000), "another": ways(80, 100),
                    "that in fragments": ways(80, 2000),
                }))
        trio.run(main)
    """
    )
    assert ways == {
        "protected": ["tunnel"],
        "in fragments": ["tunnel"] * 3,
        "another": ["past"],
        "that in fragments": ["tunnel"] * 3,
    }


def test_without_ipv6_there_is_nothing_of_it_to_keep_out() -> None:
    without, with_it = in_namespace("""
        import dataclasses
        discarded = tuple(RoutingRule(ANY[each], ANY[each], 17, None, (9, 9), way=Way.TUNNEL) for each in (4, 6))
        plan = NetworkPlan("kink0", 1400, hosts("10.1.0.1/24"), nets("10.2.0.0/24"), rules=discarded)
        async def main():
            for off in "10":
                with open("/proc/sys/net/ipv6/conf/kink0/disable_ipv6", "w") as file:
                    file.write(off)
                async with NetworkConfiguration(plan):
                    sixes = [each for each in ip("-6", "route", "show", "table", "all") if each.get("table") == "911"]
                    print(json.dumps([len(rules()), len(sixes)]))
        trio.run(main)
    """)
    assert without == [2, 0]
    assert with_it == [4, 1]


def test_more_rules_than_there_is_room_for_are_refused() -> None:
    failed, left = in_namespace("""
        import dataclasses
        past = RoutingRule(ANY[4], ipaddress.ip_network("10.2.0.0/25"))
        plan = dataclasses.replace(PLAN, rules=(past,) * 2_766, table=30_000)
        async def main():
            try:
                async with NetworkConfiguration(plan):
                    pass
            except NetworkRefused as refused:
                print(json.dumps(str(refused)))
            print(json.dumps(rules()))
        trio.run(main)
    """)
    assert failed == "2767 routing rules from 30000 on reach that of the main table"
    assert left == []


# --- changed while it holds ---


def test_a_plan_changes_into_another_and_what_both_have_is_never_gone() -> None:
    """A watcher sees every step: routes come and go, and the one that stays is not touched."""
    states, seen, after = in_namespace("""
        from pyroute2 import IPRoute
        OTHER = dataclasses.replace(PLAN, routes=nets("10.2.0.0/24", "fd00:3::/64"))
        async def main():
            found, told = [], []
            async with NetworkConfiguration(PLAN) as network:
                with IPRoute() as watcher:
                    watcher.bind()
                    for plan in (OTHER, PLAN, OTHER):
                        await network.change(plan)
                        found.append(state()["routes"])
                    subprocess.run(["ip", "route", "add", "203.0.113.0/24", "dev", "kink0"], check=True)
                    while "203.0.113.0" not in told:
                        told += [message.get_attr("RTA_DST") for message in watcher.get()]
            print(json.dumps(found))
            print(json.dumps(told))
            print(json.dumps(state()))
        trio.run(main)
    """)
    other = ["10.2.0.0/24", "fd00:3::/64"]
    assert states == [other, ["10.2.0.0/24", "default", "fd00:2::/64"], other]
    assert "fd00:3::" in seen
    assert "10.2.0.0" not in seen
    assert after == BARE


def test_rules_change_in_place_and_what_is_protected_never_goes_past() -> None:
    """Asked of the kernel again and again while lists of all lengths take each other's place."""
    ways, counts, left = in_namespace("""
        import threading
        subprocess.run("ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up; "
                       "ip addr add 192.0.2.1/24 dev eth0; ip route add default via 192.0.2.9", shell=True, check=True)
        from pyroute2 import IPRoute
        past = [RoutingRule(ANY[4], net) for net in nets("198.51.100.0/24", "198.51.101.0/24", "198.51.102.0/24")]
        into = [RoutingRule(ANY[4], net, way=Way.TUNNEL) for net in nets("198.51.103.0/24", "198.51.104.0/24")]
        own = own_rules([Endpoint("0.0.0.0", 4500)])
        lists = [own, (*own, *past), (*own, past[0], *into), (*own, past[2]), (*own, *into, *past), (), own]
        plans = [NetworkPlan("kink0", 1400, routes=nets("10.2.0.0/24"), rules=rules_) for rules_ in lists]
        seen, ended = set(), threading.Event()
        def watch():
            with IPRoute() as netlink:
                while not ended.is_set():
                    (answer,) = netlink.route("get", dst="10.2.0.9")
                    seen.add(answer.get_attr("RTA_OIF"))
        async def main():
            async with NetworkConfiguration(plans[0]) as network:
                watcher = threading.Thread(target=watch)
                watcher.start()
                counts = []
                for plan in plans * 2:
                    await network.change(plan)
                    counts.append([len(rules()), way("10.2.0.9"), way("198.51.100.1")])
                ended.set()
                watcher.join()
                print(json.dumps([len(seen), way("10.2.0.9")]))
                print(json.dumps(counts))
            print(json.dumps([rules(), way("10.2.0.9")]))
        trio.run(main)
    """)
    assert ways == [1, "kink0"]
    assert [each[1:] for each in counts] == [["kink0", "eth0"]] * 14
    lengths = [each[0] for each in counts]
    assert lengths[:7] == lengths[7:]
    assert lengths[5] == 0
    assert lengths[4] > lengths[2] > lengths[0] > 0
    assert left == [[], "eth0"]


def test_a_change_that_is_refused_changes_nothing() -> None:
    refused, during, after = in_namespace("""
        route_elsewhere("10.3.0.0/24")
        async def main():
            async with NetworkConfiguration(PLAN) as network:
                try:
                    await network.change(dataclasses.replace(PLAN, routes=nets("10.9.0.0/16", "10.3.0.0/24")))
                except NetworkRefused as error:
                    print(json.dumps(str(error)))
                print(json.dumps(state()["routes"]))
            print(json.dumps(state()))
        trio.run(main)
    """)
    assert refused == "route to 10.3.0.0/24 into kink0: File exists: it goes to other already"
    assert during == ["10.2.0.0/24", "default", "fd00:2::/64"]
    assert after == BARE
