"""Service tickets for our commands: from a cache while they live, from the KDC without ever blocking the loop.

A KDC that accepts and never answers holds libkrb5 for 27 s, and nothing in krb5.conf shortens that. So a trip to the
KDC is a thread that nobody waits for longer than they want to: callers leave at their deadline, the thread ends when
libkrb5 lets it, and what it brings then still goes into the cache (docs/kerberos.md has the figures behind this).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypedDict

import outcome
import trio

from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos.libkrb5 import ERROR_TABLE_BASE, Context, Krb5Error
from kinkvpn.kerberos.session import (
    CLOCK_ERRORS,
    KDC_ERR_ETYPE_NOSUPP,
    KRB_AP_ERR_BAD_INTEGRITY,
    KRB_AP_ERR_SKEW,
    ServiceTicket,
    patient_context,
)
from kinkvpn.proto.ports import TicketRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.kerberos.credentials import Acquired, Credentials
    from kinkvpn.kerberos.library import CData
    from kinkvpn.kerberos.session import OwnTgt

    # What a trip brings home: krb5_creds, and by how much the KDC's clock is ahead of ours in seconds.
    Fetched: TypeAlias = tuple[CData, float]

log = logging.getLogger(__name__)

# RFC 4120 §7.5.9
KDC_ERR_C_PRINCIPAL_UNKNOWN: Final = 6
KDC_ERR_S_PRINCIPAL_UNKNOWN: Final = 7
KDC_ERR_PREAUTH_FAILED: Final = 24
KDC_ERR_SERVER_NOMATCH: Final = 26
KDC_ERR_MUST_USE_USER2USER: Final = 27
# libkrb5's own
KRB5_KDCREP_SKEW: Final = ERROR_TABLE_BASE + 148
KRB5_KDC_UNREACH: Final = ERROR_TABLE_BASE + 156
KRB5_FCC_NOFILE: Final = ERROR_TABLE_BASE + 195
# Seconds: libkrb5's default for clockskew (krb5.conf(5)).
DEFAULT_SKEW: Final = 300

# Ours. A thread that libkrb5 holds costs 27 s; sixteen at once bound the stacks (16 x 8 MB of address space, some
# 100 kB touched each), and at a millisecond a trip they still bring 16,000 tickets a second.
MAX_TRIPS: Final = 16
# Tickets that are kept: as many as peers that one host could talk to, at some 2 kB each.
MAX_TICKETS: Final = 4096
# A ticket has to outlive the exchange that begins with it: seven transmissions in 31.5 s, and as much again (RFC 4430
# §9). Of a short-lived one, a tenth of what is left will have to do.
MARGIN_SECONDS: Final = 60.0
# A ticket is fetched anew at a moment drawn from this part of its life: early enough to outlast a KDC that is down for
# hours, late enough to cost two or three trips a day, and never the same moment on hosts that were started together.
RENEWAL_PART: Final = (0.5, 0.75)
# After a renewal that failed: when a tenth of what is left has gone, which comes ever more often towards the end; once
# a minute when it has ended, since a tunnel may be waiting for the KDC's return.
RETRY_PART: Final = 0.1
RETRY_SECONDS: Final = 60.0
SHORTEST_RETRY_SECONDS: Final = 1.0
# Renewals at once. They leave half of the trips to those who wait for a ticket.
MAX_RENEWALS: Final = MAX_TRIPS // 2
# The host's clock can be set while we sleep by another.
LONGEST_SLEEP: Final = 60.0


class TicketUnavailable(KinkvpnError):
    """There is no ticket; ``refusal`` says why."""

    def __init__(self, refusal: TicketRefusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Wanted(NamedTuple):
    """Which ticket.

    Args:
        server: the peer's principal, with its realm.
        tgt: the peer's ticket-granting ticket for a user-to-user ticket, None for a service ticket.
    """

    server: str
    tgt: bytes | None = None


class Trip:
    """One trip to the KDC, and everybody who waits for it."""

    __slots__ = ("done", "refusal", "ticket")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.ticket: ServiceTicket | None = None
        self.refusal: TicketRefusal | None = None

    def result(self) -> ServiceTicket:
        """Raises TicketUnavailable. Only once it is ``done``."""
        if self.ticket is None:
            assert self.refusal is not None
            raise TicketUnavailable(self.refusal)
        return self.ticket


@dataclass(slots=True)
class Kept:
    """A ticket in the cache. Times are POSIX seconds.

    Args:
        good_until: an exchange that begins later might outlive it.
        renew_at: when to fetch the next one.
        failing: the last renewal failed.
    """

    ticket: ServiceTicket
    good_until: float
    renew_at: float
    failing: bool = False


class TicketStatus(TypedDict):
    """How many tickets are kept, in how many seconds the first ends, how many could not be renewed, and of those that
    we renew when each ends, in POSIX seconds by server.
    """

    kept: int
    first_ends: float | None
    not_renewed: int
    ends: dict[str, float]


class TicketSource:
    """Tickets of one client, one trip at a time for each server, however many ask.

    Args:
        credentials: who we are.
        clock: POSIX seconds, by which tickets end.
        fetch: ``(credentials, server)`` to credentials and clock offset; blocking, in a thread of its own.

    Raises:
        LibraryUnusable, Krb5Error: no MIT libkrb5, or krb5.conf does not parse.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        clock: Callable[[], float] = time.time,
        fetch: Callable[[Credentials, str], Fetched] | None = None,
    ) -> None:
        self._credentials, self._clock, self._fetch = credentials, clock, fetch or fetch_ticket
        self._context = patient_context()  # the loop's: the threads have their own
        self._skew = allowed_skew(Context())  # a patient context allows any
        self._tickets: dict[Wanted, Kept] = {}
        self._sooner = trio.Event()
        self._due = math.inf
        self._trips: dict[Wanted, Trip] = {}
        self._free = trio.Semaphore(MAX_TRIPS, max_value=MAX_TRIPS)

    async def get(
        self, server: str, *, deadline: float, fresh: bool = False, tgt: bytes | None = None
    ) -> ServiceTicket:
        """A ticket for ``server``, good for a whole exchange where the KDC gives such.

        Args:
            server: the peer's principal, with its realm; or ``service/host@``, for which krb5.conf and the KDC find
                one: :meth:`ServiceTicket.issued_to` says whom.
            deadline: seconds from now.
            fresh: not the one that was kept.
            tgt: the peer's ticket-granting ticket, for a user-to-user ticket (RFC 4430 §3.1); it is kept beside the
                service ticket, and one made with another ticket-granting ticket is another ticket.

        Raises:
            TicketUnavailable: at the deadline at the latest; says which KDC and how long.
        """
        kept = None if fresh else self.at_hand(server, tgt=tgt)
        if kept is not None:
            await trio.lowlevel.checkpoint()
            return kept
        wanted = Wanted(server, tgt)
        started = trio.current_time()
        with trio.move_on_after(deadline):
            trip = await self._board(wanted)
            await trip.done.wait()
            return trip.result()
        waited = trio.current_time() - started
        reason = self._silence(server, waited)
        raise TicketUnavailable(TicketRefusal(f"no ticket for {server.removesuffix('@')}: {reason}"))

    def at_hand(self, server: str, *, tgt: bytes | None = None) -> ServiceTicket | None:
        """What ``get`` would return at once; None where it would have to ask the KDC."""
        kept = self._tickets.get(Wanted(server, tgt))
        return kept.ticket if kept and self._clock() < kept.good_until else None

    async def reach_kdc(self, *, deadline: float) -> None:
        """Get our ticket-granting ticket: the KDC is there, knows us, and agrees about key, enctype and clock.

        libkrb5 makes up for a clock that is wrong when we ask (kdc_timesync), so everything seems well; but what peers
        send us is judged by that clock, and every one of their commands would be refused.

        Args:
            deadline: seconds from now.

        Raises:
            TicketUnavailable: which KDC, and how long we waited or what it said.
        """
        ahead = -(await self._granting_ticket(deadline=deadline)).clock_offset
        if abs(ahead) > self._skew:
            direction = "ahead of" if ahead > 0 else "behind"
            reason = f"this host's clock is {abs(ahead):.0f} s {direction} that of {self._kdcs()}"
            raise TicketUnavailable(TicketRefusal(f"clock skew: {reason}, {self._skew} s are allowed: set it right"))

    async def own_tgt(self, *, deadline: float) -> OwnTgt:
        """Our ticket-granting ticket as it is now: renewed by us, or by whoever keeps the credential cache.

        Args:
            deadline: seconds from now.

        Raises:
            TicketUnavailable: at the deadline at the latest; says which KDC and how long.
        """
        return (await self._granting_ticket(deadline=deadline, fresh=True)).as_tgt()

    async def _granting_ticket(self, *, deadline: float, fresh: bool = False) -> ServiceTicket:
        realm = self._context.canonical(self._credentials.principal).rpartition("@")[2]
        return await self.get(f"krbtgt/{realm}@{realm}", deadline=deadline, fresh=fresh)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch every ticket that was asked for anew before it ends, until cancelled, so that nobody waits for it."""
        limit = trio.CapacityLimiter(MAX_RENEWALS)
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._sooner = trio.Event()
                now = self._clock()
                for wanted, kept in self._tickets.items():
                    if kept.renew_at <= now:
                        kept.renew_at = math.inf
                        nursery.start_soon(self._renew, wanted, kept, limit)
                self._due = min((kept.renew_at for kept in self._tickets.values()), default=math.inf)
                with trio.move_on_after(min(self._due - now, LONGEST_SLEEP)):
                    await self._sooner.wait()

    async def _renew(self, wanted: Wanted, kept: Kept, limit: trio.CapacityLimiter) -> None:
        async with limit:
            trip = await self._board(wanted)
            await trip.done.wait()
        if trip.refusal is None:
            if kept.failing:
                log.info("ticket_renewed", extra={"fields": {"server": wanted.server}})
            return
        remaining = kept.ticket.endtime - self._clock()
        kept.renew_at = self._clock() + retry_after(remaining)
        self._look_by(kept.renew_at)
        if not kept.failing:
            kept.failing = True
            fields = {"server": wanted.server, "seconds_left": round(remaining), "reason": trip.refusal.reason}
            log.warning("ticket_not_renewed", extra={"fields": fields})
        if remaining < 0 and trip.refusal.code is not None and self._tickets.get(wanted) is kept:
            del self._tickets[wanted]  # the KDC lives and says no: whoever wants this ticket asks for it

    def _look_by(self, renew_at: float) -> None:
        """Not at every ticket that comes: of two thousand peers, each would have all of them looked through."""
        if renew_at < self._due:
            self._sooner.set()

    def status(self) -> TicketStatus:
        """Of now."""
        now = self._clock()
        alive = [kept for kept in self._tickets.values() if kept.ticket.endtime > now]
        return {
            "kept": len(alive),
            "first_ends": round(min(kept.ticket.endtime for kept in alive) - now, 3) if alive else None,
            "not_renewed": sum(kept.failing for kept in self._tickets.values()),
            "ends": {
                wanted.server: kept.ticket.endtime for wanted, kept in self._tickets.items() if wanted.tgt is None
            },
        }

    async def _board(self, wanted: Wanted) -> Trip:
        """The trip that is under way, or a new one as soon as a thread may start."""
        if wanted not in self._trips:
            await self._free.acquire()
            if wanted not in self._trips:
                return self._depart(wanted)
            self._free.release()  # somebody left while we waited
        return self._trips[wanted]

    def _depart(self, wanted: Wanted) -> Trip:
        """Starts the thread. It belongs to no task, so that no caller's deadline takes it from the others."""
        trip = self._trips[wanted] = Trip()
        arrive = functools.partial(self._arrive, wanted, trip, trio.current_time())
        token = trio.lowlevel.current_trio_token()

        def deliver(result: outcome.Outcome[Fetched]) -> None:
            with contextlib.suppress(trio.RunFinishedError):  # the daemon has ended meanwhile
                token.run_sync_soon(arrive, result)

        fetch = functools.partial(self._fetch, self._credentials, wanted.server)
        if wanted.tgt is not None:
            fetch = functools.partial(fetch_ticket, self._credentials, wanted.server, wanted.tgt)
        try:
            trio.lowlevel.start_thread_soon(fetch, deliver, name=f"kdc trip for {wanted.server}")
        except RuntimeError as error:  # this host has no thread to spare: no reason to end, for a renewal least of all
            arrive(outcome.Error(error))
        return trip

    def _arrive(self, wanted: Wanted, trip: Trip, departed: float, result: outcome.Outcome[Fetched]) -> None:
        """Back on the loop."""
        self._free.release()
        del self._trips[wanted]
        name = wanted.server.removesuffix("@")
        try:
            credentials, offset = result.unwrap()
            trip.ticket = ServiceTicket(self._context, credentials, offset, wanted.tgt)
            self._keep(wanted, trip.ticket)
        except Krb5Error as error:
            waited = trio.current_time() - departed
            trip.refusal = TicketRefusal(
                f"no ticket for {name}: {self._explain(error, wanted.server, waited)}", error.protocol_code
            )
        except Exception as error:
            # Nobody would hear of it otherwise: the callers wait for the event, and the loop must not die of a thread.
            trip.refusal = TicketRefusal(f"no ticket for {name}: {type(error).__name__}: {error}")
        trip.done.set()

    def _keep(self, wanted: Wanted, ticket: ServiceTicket) -> None:
        now = self._clock()
        remaining = ticket.endtime - now
        renew_at = now + max(remaining * random.uniform(*RENEWAL_PART), SHORTEST_RETRY_SECONDS)  # noqa: S311 # spreads load
        if wanted.tgt is not None:
            renew_at = math.inf  # the peer's ticket-granting ticket ends too: it is asked for another then
        self._tickets.pop(wanted, None)
        self._tickets[wanted] = Kept(ticket, ticket.endtime - min(MARGIN_SECONDS, remaining / 10), renew_at)
        self._look_by(renew_at)
        if len(self._tickets) > MAX_TICKETS:
            del self._tickets[next(iter(self._tickets))]

    def _explain(self, error: Krb5Error, server: str, waited: float) -> str:
        """What to do about it, as far as the code tells."""
        if error.code == KRB5_KDC_UNREACH:
            return self._silence(server, waited)
        kdcs, us = self._kdcs(), self._credentials.principal
        theirs = self._kdcs(server) if error.protocol_code is not None else kdcs  # it may be no name at all
        skew = f"clock skew: the clocks of this host and of {kdcs} differ by more than {self._skew} s: set ours right"
        stale = (
            f"{kdcs} has another key for {us} than {self._credentials.source}: bring the new one here (kadmin ktadd)"
        )
        # Of a name without a realm, whichever KDC was asked last.
        unknown = (
            f"{kdcs} knows no such principal, nor whom to ask"
            if server.endswith("@")
            else (f"{theirs} does not know that principal")
        )
        reasons = {
            ERROR_TABLE_BASE + KRB_AP_ERR_SKEW: skew,
            KRB5_KDCREP_SKEW: skew,
            KRB5_FCC_NOFILE: f"{self._credentials.source} is not there: kinit makes it",
            ERROR_TABLE_BASE + KDC_ERR_C_PRINCIPAL_UNKNOWN: f"{kdcs} does not know us as {us}",
            ERROR_TABLE_BASE + KDC_ERR_S_PRINCIPAL_UNKNOWN: unknown,
            ERROR_TABLE_BASE + KDC_ERR_MUST_USE_USER2USER: f"{theirs} has user-to-user tickets only for that principal",
            ERROR_TABLE_BASE + KDC_ERR_SERVER_NOMATCH: "the peer gave us another principal's ticket-granting ticket",
            ERROR_TABLE_BASE + KDC_ERR_PREAUTH_FAILED: stale,
            ERROR_TABLE_BASE + KRB_AP_ERR_BAD_INTEGRITY: stale,
            ERROR_TABLE_BASE + KDC_ERR_ETYPE_NOSUPP: f"unsupported enctype: {error}",
        }
        return reasons.get(error.code, str(error))

    def _silence(self, server: str, waited: float) -> str:
        """A ticket for another realm's principal is got from both realms' KDCs, and libkrb5 does not say which hung."""
        asked = " or ".join(dict.fromkeys((self._kdcs(), self._kdcs(server))))
        return f"no answer from {asked} in {waited:.1f} s"

    def _kdcs(self, principal: str | None = None) -> str:
        """Of the principal's realm; of ours where none is named."""
        named = principal if principal and not principal.endswith("@") else self._credentials.principal
        realm = self._context.canonical(named).rpartition("@")[2]
        listed = self._context.profile_values("realms", realm, "kdc")
        return f"the KDC of {realm} ({', '.join(listed) or 'found by DNS'})"


def retry_after(remaining: float) -> float:
    """Seconds until a renewal that failed is tried again, of a ticket with ``remaining`` seconds."""
    return max(remaining * RETRY_PART, SHORTEST_RETRY_SECONDS) if remaining > 0 else RETRY_SECONDS


def allowed_skew(context: Context) -> int:
    """Seconds by which clocks may differ, as krb5.conf has it."""
    configured = context.profile_values("libdefaults", "clockskew")
    return int(configured[0]) if configured and configured[0].isdecimal() else DEFAULT_SKEW


def fetch_ticket(credentials: Credentials, server: str, tgt: bytes | None = None) -> Fetched:
    """The trip itself, in a context of its own. Blocks.

    Args:
        credentials: who we are.
        server: whom the ticket is for.
        tgt: the server's ticket-granting ticket, for a user-to-user ticket.

    Raises:
        Krb5Error: what the KDC, or the way to it, answered.
    """
    try:
        return fetch_with(credentials.acquire(), server, tgt)
    except Krb5Error as error:
        if error.protocol_code not in CLOCK_ERRORS:
            raise
        # Our clock was set since we got our ticket-granting ticket, whose cache keeps what the KDC taught about it.
        return fetch_with(credentials.acquire(anew=True), server, tgt)


def fetch_with(acquired: Acquired, server: str, tgt: bytes | None = None) -> Fetched:
    """A ticket for this ticket-granting ticket of ours, and the server's if there is one. Blocks. Raises Krb5Error."""
    context = Context()
    ccache = context.ccache(acquired.ccache)
    wanted = on_its_host(server) if server.endswith("@") else context.principal(server)
    found = context.credentials(ccache, context.ccache_principal(ccache), wanted, tgt)
    return found, context.clock_offset()


def on_its_host(server: str) -> CData:
    """The krb5_principal of ``service/host@``, for libkrb5 to follow referrals (RFC 6806 §8).

    DNS is asked for another name of the host only where krb5.conf says that it shall be: who answers for DNS would
    choose whom the ticket is for (RFC 4120 §1.3), and that is libkrb5's default.
    """
    service, _, host = server.removesuffix("@").partition("/")
    said = Context().profile_values("libdefaults", "dns_canonicalize_hostname")
    return Context(None if said else {"dns_canonicalize_hostname": "false"}).on_host(service, host)
