"""The kill switch: whether it keeps in what it is to keep in, and whether somebody is kept in who does not know why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.config import Block, TunSettings
from kinkvpn.doctor.finding import error, note, ok, warning
from kinkvpn.service import kill_switch

if TYPE_CHECKING:
    from kinkvpn.doctor.examination import Patient, Report


async def kept_in(patient: Patient, report: Report) -> None:
    """The table of nftables, beside the daemon and the configuration."""
    configured = patient.configuration
    device = configured.tun.name if configured else TunSettings().name
    block = configured.clear.block if configured else Block.NOTHING
    for reason in kill_switch.obstacles(configured) if configured else ():
        report(error("kill-switch-missing", reason, "kinkvpn up refuses to start without", "apt-get install nftables"))
        return
    try:
        there = await kill_switch.stands(device)
    except kill_switch.KillSwitchRefused as refused:
        if block is not Block.NOTHING:
            report(note("kill-switch-hidden", str(refused), "so nobody has looked", patient.in_full()))
        return
    table = f"the table inet {kill_switch.table_of(device)} of nftables"
    if there and not patient.daemon_runs:
        why = "it outlives a daemon that crashed or was stopped by a signal, on purpose; `kinkvpn up` takes it over"
        report(warning("kill-switch-alone", f"no daemon runs, and {table} keeps traffic in", why, _unblock(patient)))
    elif there and patient.from_file and block is Block.NOTHING:
        line = f'clear.block is "nothing", and {table} keeps traffic in all the same'
        why = "it is an earlier daemon's, and somebody has restored it: what it knows as protected does not get out"
        report(warning("kill-switch-left", line, why, _unblock(patient)))
    elif block is not Block.NOTHING and patient.daemon_runs and not there:
        why = "somebody has flushed the rules of nftables: what belongs in the tunnel may leave in the clear"
        report(error("kill-switch-gone", f"{table} is not there", why, patient.kinkvpn("reload")))
    elif there:
        report(ok("kill-switch", f"{table} keeps in what must not leave in the clear ({block.value})"))


def _unblock(patient: Patient) -> str:
    """Takes the table away: by our own command where there is a configuration, which that reads."""
    if patient.configuration is None or not patient.from_file:
        return f"nft delete table inet {kill_switch.table_of(TunSettings().name)}"
    return patient.kinkvpn("unblock")
