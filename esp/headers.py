"""What an operator decides about the headers that ESP puts around packets (RFC 4301 §5.1.2, RFC 6040, RFC 2983)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

DSCP_VALUES = 64  # six bits (RFC 2474 §3)


class Ecn(Enum):
    """The ingress modes of RFC 6040 §4.3; an egress has but one."""

    NORMAL = "normal"  # the outer ECN field is the inner one
    COMPATIBLE = "compatible"  # Not-ECT: for a peer that throws away what the path marks (RFC 2401)


class DontFragment(Enum):
    """Where DF of an outer IPv4 header comes from (RFC 4301 §5.1.2.1, note 4)."""

    AUTO = "auto"  # the kernel's path MTU discovery: set, but for datagrams that this host fragments itself
    COPY = "copy"  # from the inner packet; an IPv6 one has it, for its routers do not fragment either
    SET = "set"
    CLEAR = "clear"


# Entry n is the outer DSCP of inner DSCP n. RFC 4301 §5.1.2.1 copies it.
DSCP_COPIED = bytes(range(DSCP_VALUES))


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """How the headers of an SA's packets depend on each other.

    Args:
        ecn: what the outer ECN field is made of.
        dscp: 64 octets, of which number n is the outer DSCP of inner DSCP n (RFC 4301 §5.1.2.1, note 5). A table of one
            value says nothing of the inner packets to who watches: copying is a covert channel.
        dscp_inward: whether the outer DSCP, which nobody vouches for, replaces the inner one of a packet that arrives
            (RFC 4301 §5.1.2.2, note 9).
        df: of an outer IPv4 header.
        flow_labels: whether an outer IPv6 header has a label for each flow inside (RFC 6438), and not the kernel's,
            which is the same for all. Who watches then tells the flows apart.
    """

    ecn: Ecn = Ecn.NORMAL
    dscp: bytes = DSCP_COPIED
    dscp_inward: bool = False
    df: DontFragment = DontFragment.AUTO
    flow_labels: bool = False


# RFC 4301 §5.1.2 as it stands, with the kernel's path MTU discovery.
DEFAULT_RULES = HeaderRules()
