"""Our own credentials: the keytab or credential cache that proves who we are, and the tickets it gets us.

gssapi acquires and refreshes them, for it brings MIT's own rules of stores and lifetimes with it. Two looks at what is
on disk, :func:`check_keytab` and :func:`check_ccache`, need no KDC and say in one line what is wrong.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos.libkrb5 import ERROR_TABLE_BASE, TKT_FLG_RENEWABLE, Context, Krb5Error, posix_seconds
from kinkvpn.kerberos.session import KRB_AP_ERR_TKT_EXPIRED, PERMITTED_ENCTYPES, enctype_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Names in an error line: enough to recognise one's own host, short enough to stay a line.
MAX_NAMES: Final = 4
# What to ask the realm's administrator for (RFC 8009).
STRONGEST_ENCTYPE: Final = 20

# Ours. A KDC that does not answer costs 27 s, and nobody's ticket shall wait for a renewal that can wait.
RETRY_SECONDS: Final = 60.0

MEMORY_CCACHE_NUMBERS: Final = itertools.count()


class CredentialsUnusable(KinkvpnError):
    """What is configured as our credentials cannot prove who we are."""


class KeytabMissing(CredentialsUnusable):
    """No such file."""


class KeytabUnreadable(CredentialsUnusable):
    """We may not read it, or it is no keytab."""


class KeytabLacksPrincipal(CredentialsUnusable):
    """Its keys are other principals'."""


class KeytabEnctypesRefused(CredentialsUnusable):
    """Every key of the principal is of a refused enctype."""


class CcacheUnusable(CredentialsUnusable):
    """The credential cache is missing, somebody else's, or its tickets have expired."""


def check_keytab(path: Path, principal: str) -> frozenset[int]:
    """The permitted enctypes for which the keytab at ``path`` holds keys of ``principal``.

    Raises:
        KeytabMissing, KeytabUnreadable, KeytabLacksPrincipal, KeytabEnctypesRefused: one line each.
        Krb5Error, LibraryUnusable: the principal or krb5.conf does not parse; no MIT libkrb5.
    """
    check_readable(path)
    context = Context()
    wanted = context.canonical(principal)
    try:
        entries = list(context.keytab_entries(context.keytab(f"FILE:{path}")))
    except Krb5Error as error:
        raise KeytabUnreadable(f"{path} is not a keytab: {error}") from error
    enctypes = {enctype for name, _, enctype in entries if name == wanted}
    if not enctypes:
        raise KeytabLacksPrincipal(f"keytab {path} has no key of {wanted}, only of {some({e[0] for e in entries})}")
    if not enctypes & PERMITTED_ENCTYPES:
        names = some({enctype_name(enctype) for enctype in enctypes})
        raise KeytabEnctypesRefused(
            f"keytab {path} has keys of {wanted} for refused enctypes only: {names}; "
            f"expected one such as {enctype_name(STRONGEST_ENCTYPE)}"
        )
    return frozenset(enctypes & PERMITTED_ENCTYPES)


def check_readable(path: Path) -> None:
    """Raises KeytabMissing or KeytabUnreadable."""
    try:
        with path.open("rb"):
            return
    except FileNotFoundError as error:
        raise KeytabMissing(f"keytab {path} does not exist") from error
    except OSError as error:
        raise KeytabUnreadable(f"keytab {path} cannot be read by uid {os.geteuid()}: {error.strerror}") from error


def check_ccache(name: str, principal: str) -> None:
    """Raises CcacheUnusable unless the cache is there and ``principal``'s. Says nothing of lifetimes."""
    context = Context()
    wanted = context.canonical(principal)
    try:
        owner = context.unparse(context.ccache_principal(context.ccache(name)))
    except Krb5Error as error:
        raise CcacheUnusable(f"credential cache {name}: {error}") from error
    if owner != wanted:
        raise CcacheUnusable(f"credential cache {name} is {owner}'s, not {wanted}'s")


def some(names: set[str]) -> str:
    """A few of the names, sorted."""
    listed = sorted(names)
    more = f" and {len(listed) - MAX_NAMES} more" if len(listed) > MAX_NAMES else ""
    return (", ".join(listed[:MAX_NAMES]) or "nobody") + more


@dataclass(frozen=True, slots=True)
class Acquired:
    """A ticket-granting ticket: in which cache, and until when (POSIX seconds)."""

    ccache: str
    endtime: float


class Credentials:
    """One principal's ticket-granting ticket, got anew in good time. Thread-safe; its calls block.

    With a keytab every acquisition goes into a memory cache of its own, because MIT empties a cache before it fills
    it again, and another thread may be asking for a service ticket with it at that moment.

    Args:
        principal: who we are.
        keytab: where our key is.
        ccache: alone, a cache that somebody else fills, such as a person with kinit. What is renewable in it is
            renewed, into a cache of our own: theirs is only read, and once it is gone (kdestroy) so are we. With a
            keytab, where the tickets go instead of memory, so that they outlive the process.
        clock: POSIX seconds.

    Raises:
        CredentialsUnusable: neither of both.
    """

    def __init__(
        self,
        principal: str,
        *,
        keytab: Path | None = None,
        ccache: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keytab is None and ccache is None:
            raise CredentialsUnusable("credentials need a keytab or a credential cache")
        self.principal = principal
        self._keytab, self._ccache, self._clock = keytab, ccache, clock
        self._lock = threading.Lock()
        self._caches: list[str] = []
        self._acquired: Acquired | None = None
        self._renew_at = 0.0
        self._failure: Krb5Error | None = None
        self._failed_at = 0.0

    @property
    def source(self) -> str:
        """What proves who we are, for the operator."""
        return f"keytab {self._keytab}" if self._keytab else f"credential cache {self._ccache}"

    def acquire(self, *, anew: bool = False) -> Acquired:
        """A cache with a valid ticket-granting ticket; asks the KDC when the last one is half spent.

        Args:
            anew: not the last one, whatever is left of it.

        Raises:
            Krb5Error: what the KDC, or the way to it, answered.
        """
        asked = time.monotonic()
        with self._lock:
            if self._acquired and self._clock() < self._renew_at and not anew:
                return self._acquired
            if self._failure and self._failed_at >= asked:
                # It failed for somebody else while we waited for our turn. A KDC that does not answer costs 27 s:
                # threads that each tried in turn would wait for minutes.
                raise Krb5Error(self._failure.code, str(self._failure))
            try:
                return self._renew()
            except Krb5Error as error:
                self._failure, self._failed_at = error, time.monotonic()
                raise

    def _renew(self) -> Acquired:
        if self._keytab is None:
            return self._borrow()
        now, store = self._clock(), self._store()
        acquired = Acquired(store["ccache"], now + lifetime_in(self.principal, store))
        if self._ccache is None:
            self._keep(acquired.ccache)
            # As MIT does with a client keytab. A cache with a name is looked at every time: others write to it.
            self._renew_at = (now + acquired.endtime) / 2
        self._acquired = acquired
        return acquired

    def _borrow(self) -> Acquired:
        """Out of a cache that is somebody else's, or ours with what was renewed of it, whichever lasts longer."""
        assert self._ccache is not None
        context = Context()
        owner = context.unparse(context.ccache_principal(context.ccache(self._ccache)))  # raises where it is gone
        found = [ticket for name in (self._ccache, *self._caches[-1:]) if (ticket := Granting.found(context, name))]
        if not found or owner != context.canonical(self.principal):
            lifetime_in(self.principal, {"ccache": self._ccache})  # says what is wrong with it
            raise CcacheUnusable(f"credential cache {self._ccache} holds no ticket-granting ticket of {self.principal}")
        best = max(found, key=lambda ticket: ticket.endtime)
        if best.renewable and self._clock() > max((best.starttime + best.endtime) / 2, self._renew_at):
            best = self._renewed(context, best)
        return Acquired(best.ccache, best.endtime)

    def _renewed(self, context: Context, ticket: Granting) -> Granting:
        """``ticket`` as the KDC renews it; as it is where the KDC does not, since it lives on for a while."""
        name = f"MEMORY:kinkvpn-{next(MEMORY_CCACHE_NUMBERS)}"
        try:
            context.renew(context.ccache(ticket.ccache), context.ccache(name))
        except Krb5Error:
            self._renew_at = self._clock() + RETRY_SECONDS
            return ticket
        self._keep(name)
        return Granting.found(context, name) or ticket

    def _store(self) -> dict[str, str]:
        keytab = {"client_keytab": f"FILE:{self._keytab}"} if self._keytab else {}
        return keytab | {"ccache": self._ccache or f"MEMORY:kinkvpn-{next(MEMORY_CCACHE_NUMBERS)}"}

    def _keep(self, ccache: str) -> None:
        """The one before stays too, for half a lifetime: far longer than a libkrb5 call that uses it can hang."""
        self._caches.append(ccache)
        while len(self._caches) > 2:
            Context().destroy_ccache(self._caches.pop(0))


@dataclass(frozen=True, slots=True)
class Granting:
    """A ticket-granting ticket in a cache; times are POSIX seconds."""

    ccache: str
    starttime: float
    endtime: float
    renewable: bool  # beyond its present end

    @classmethod
    def found(cls, context: Context, ccache: str) -> Granting | None:
        """The one in ``ccache``, unless it has ended or there is none."""
        try:
            ticket = context.granting_ticket(context.ccache(ccache))
        except Krb5Error:
            return None
        start, end, till = (
            posix_seconds(second)
            for second in (
                ticket.times.starttime or ticket.times.authtime,
                ticket.times.endtime,
                ticket.times.renew_till,
            )
        )
        return cls(ccache, float(start), float(end), bool(ticket.ticket_flags & TKT_FLG_RENEWABLE) and till > end)


def lifetime_in(principal: str, store: dict[str, str]) -> float:
    """Seconds that the credentials of ``store`` last, which are acquired first where they have to be.

    Raises Krb5Error with the krb5 mechanism's own code and words.
    """
    # Here, so that a host without libgssapi_krb5 can still be told so by whoever checks it first.
    import gssapi

    named: dict[bytes | str, bytes | str] = dict(store.items())
    try:
        name = gssapi.Name(principal, gssapi.NameType.kerberos_principal)
        found = gssapi.Credentials(name=name, usage="initiate", store=named, mechs=[gssapi.MechType.kerberos])
        return float(found.lifetime or 0)
    except gssapi.exceptions.ExpiredCredentialsError as error:
        # Its minor code is the mechanism's own, and nothing has words for it.
        where = store["ccache"]
        raise Krb5Error(
            ERROR_TABLE_BASE + KRB_AP_ERR_TKT_EXPIRED, f"the tickets in {where} have ended: kinit gets new ones"
        ) from error
    except gssapi.raw.GSSError as error:
        # The minor code is libkrb5's, unsigned. Some of gssapi's own (expired, no credentials) come without one.
        code = error.min_code - (1 << 32) if error.min_code >= 1 << 31 else error.min_code
        major = error.min_code == 0
        words = error.get_all_statuses(error.maj_code if major else error.min_code, major)
        raise Krb5Error(code, "; ".join(words)) from error
