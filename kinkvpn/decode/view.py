"""Records of messages as text for people: at most WIDTH columns, the faults where the eye falls."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from kinkvpn.decode.numbers import spoken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.decode.transcript import Record

WIDTH: Final = 100
INDENT: Final = 4
COLUMN: Final = 22  # where every text begins, however deep its payload lies
STATUS_WORDS: Final = {"verified": "verified", "clear": "in the clear", "failed": "NOT VERIFIED"}
MARKS: Final = {"wrong": "!!", "odd": " !", "note": " -"}
COLOURS: Final = {"wrong": "31", "failed": "31", "odd": "33", "verified": "32"}
BOLD: Final = "1"


class View:
    """Makes text of records.

    Args:
        colour: whether the terminal takes escape sequences.
    """

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def message(self, record: Record) -> str:
        """A block of lines, without a newline at its end."""
        return "\n".join(self._lines(record))

    def _lines(self, record: Record) -> Iterator[str]:
        kind = "?" if record["type"] is None else spoken(record["type"])
        when = _plain(record["time"] or "no time")
        xid = "" if record["xid"] is None else f"  XID 0x{record['xid']:08x}"
        head = f"#{record['number']}  {kind}{xid}"
        status = STATUS_WORDS[record["status"]]
        gap = " " * max(2, WIDTH - len(head) - len(status))
        yield self._paint(BOLD, head) + gap + self._paint(COLOURS.get(record["status"], ""), status)
        where = f"{record['source']} > {record['destination']}" + ("  non-ESP marker" if record["marked"] else "")
        frame = f"frame {record['frame']}" + (f", {record['fragments']} fragments" if record["fragments"] > 1 else "")
        place = f"{when}  {where}  ({frame}, {record['octets']} octets)"  # two IPv6 addresses are a line by themselves
        indent = " " * INDENT
        yield from textwrap.wrap(place, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        yield from rows(_facts(record), INDENT, COLUMN - INDENT)
        for payload in record["payloads"]:
            yield from _payload(payload, INDENT)
        for finding in record["findings"]:
            mark = MARKS[finding["severity"]]
            lines = textwrap.wrap(printable(finding["text"]), WIDTH - 4, break_on_hyphens=False) or [""]
            yield self._paint(COLOURS.get(finding["severity"], ""), f" {mark} {lines[0]}")
            yield from (f"    {line}" for line in lines[1:])

    def summary(self, record: Record) -> str:
        """The end of the text: counts, and what is still open."""
        return "\n".join(self._summary(record))

    def _summary(self, record: Record) -> Iterator[str]:
        messages, status = record["messages"], record["status"]
        verdict = "verified" if record["ok"] else "failed"
        counts = [f"{status[name]} {words.lower()}" for name, words in STATUS_WORDS.items() if status[name]]
        line = f"{messages} KINK message{'s' if messages != 1 else ''} in {record['frames']} frames"
        yield self._paint(COLOURS[verdict], line + (f": {', '.join(counts)}" if counts else ""))
        for key, words in (("unanswered", "never answered"), ("unacknowledged", "never acknowledged")):
            if record[key]["count"]:
                yield from rows([(words, _listed(record[key]))], 2, COLUMN - 2)
        if record["findings"]:
            found = ", ".join(f"{name} {count}" for name, count in sorted(record["findings"].items()))
            yield from rows([("findings", found)], 2, COLUMN - 2)
        for text in record["remarks"]:
            yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code else text


def _listed(tally: dict[str, Any]) -> str:
    shown = " ".join(f"#{number}" for number in tally["numbers"][:20])
    return shown + (f" and {tally['count'] - 20} more" if tally["count"] > 20 else "")


def rows(facts: list[tuple[str, str]], indent: int, label: int) -> Iterator[str]:
    """Label and text, the text wrapped under itself."""
    for name, text in facts:
        lead = " " * indent + name.ljust(label)
        rest = " " * (indent + label)
        wrapped = textwrap.wrap(
            printable(text), WIDTH, initial_indent=lead, subsequent_indent=rest, break_on_hyphens=False
        )
        yield from wrapped or [lead.rstrip()]


def printable(text: str) -> str:
    """Names and error texts come from whoever could send a datagram."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _facts(record: Record) -> list[tuple[str, str]]:
    facts = []
    if record["length"] is not None:
        cksum = (
            f"Cksum {record['checksum']}"
            if record["checksum"] == "none"
            else (f"Cksum {record['checksum']} ({record['checksum_octets']} octets)")
        )
        ackreq = ", ACKREQ" if record["ackreq"] else ""
        text = f"version {record['version']}, DOI {record['doi']}, Length {record['length']}{ackreq}, {cksum}"
        facts.append(("header", text))
    relation = record["relation"]
    if relation:
        facts += _relation(relation)
    if record["server"] is not None:
        client = record["client"] or "?"
        facts.append(("principals", f"{client} -> {record['server']}"))
    if record["ticket"] is not None:
        facts.append(("ticket", _ticket(record["ticket"])))
    if record["authenticator"] is not None:
        facts.append(("authenticator", _authenticator(record)))
    if record["ap_rep"] is not None:
        facts.append(("AP-REP", f"answers the authenticator of #{record['ap_rep']['answers']}"))
    if record["epoch"] is not None:
        facts.append(("epoch", _plain(record["epoch"])))
    return facts


def _authenticator(record: Record) -> str:
    text = _plain(record["authenticator"]["time"])
    if record["at"] is None:
        return text
    seconds = record["at"] - record["authenticator"]["at"]
    return f"{text}, {abs(seconds):.3f} s {'before' if seconds >= 0 else 'after'} it was captured"


def _relation(relation: dict[str, Any]) -> list[tuple[str, str]]:
    if relation["role"] == "reply" and relation["answers"] is not None:
        after = "" if relation["after_ms"] is None else f", after {relation['after_ms']:.1f} ms"
        return [("answers", f"#{relation['answers']}{after}")]
    if relation["role"] == "ack" and relation["acknowledges"] is not None:
        return [("acknowledges", f"#{relation['acknowledges']}")]
    return []


def _ticket(ticket: dict[str, Any]) -> str:
    kvno = "no kvno" if ticket["kvno"] is None else f"kvno {ticket['kvno']}"
    text = f"sealed with {kvno}, {_enctype(ticket['enctype'])}"
    if "end" not in ticket:
        return text + "; not opened"
    return f"{text}; session key {_enctype(ticket['session_enctype'])}; until {_plain(ticket['end'])}"


def _enctype(enctype: dict[str, Any]) -> str:
    return enctype["name"] or f"enctype {enctype['number']}"


def _plain(time: str) -> str:
    """UTC, and the Z that says so stays."""
    return time.replace("T", " ") if time.endswith("Z") else time


def _payload(payload: dict[str, Any], indent: int) -> Iterator[str]:
    name = payload["payload"] or f"payload {payload['number']}"
    yield from rows([(name, _payload_text(payload))], indent, COLUMN - indent)
    for inside in payload.get("inside") or ():
        yield from _payload(inside, indent + 2)
    for entry in payload.get("quick_mode") or ():
        yield from _quick_mode(entry, indent + 2)


def _payload_text(payload: dict[str, Any]) -> str:
    if "error" in payload:
        return spoken(payload["error"])
    if payload.get("krb_error"):
        return _krb_error(payload["krb_error"])
    if "principal" in payload:
        return f"asks for the TGT of {payload['principal']}"
    if payload.get("ticket"):
        ticket = payload["ticket"]
        return f"a ticket for {ticket['server']}, {_enctype(ticket['enctype'])}"
    if "opened" in payload:
        return f"{payload['octets']} octets, {'opened' if payload['opened'] else 'not opened'}"
    if "quick_mode_version" in payload:
        return f"Quick Mode {payload['quick_mode_version']}"
    return f"{payload['octets']} octets"


def _krb_error(error: dict[str, Any]) -> str:
    text = f"{error['code']['name'] or 'error'} ({error['code']['number']}): {error['meaning']}"
    text += f"; from {error['server']} at {_plain(error['server_time'])}"
    return text + (f'; "{error["text"]}"' if error["text"] else "")


def _quick_mode(entry: dict[str, Any], indent: int) -> Iterator[str]:
    name = entry.get("role") or entry["payload"] or f"type {entry['number']}"
    yield from rows([(name, _quick_mode_text(entry))], indent, COLUMN - indent)
    for proposal in entry.get("proposals") or ():
        text = f"proposal {proposal['number']}: {spoken(proposal['protocol'])}, SPI {proposal['spi']}"
        yield from rows([("", text)], COLUMN, 2)
        for transform in proposal["transforms"]:
            lead = f"transform {transform['number']}:"
            yield from rows([(lead, _transform(transform))], COLUMN + 4, len(lead) + 1)


def _transform(transform: dict[str, Any]) -> str:
    parts = [spoken(transform["id"])]
    for attribute in transform["attributes"]:
        kind = attribute["type"]["name"]
        if kind == "LIFE_TYPE":
            continue  # the unit of the duration says it
        name = (kind or f"attribute {attribute['type']['number']}").lower().replace("_", " ")
        value = attribute["meaning"] or f"{attribute['value']}{' ' + attribute['unit'] if attribute['unit'] else ''}"
        parts.append(f"{name} {value}")
    return ", ".join(parts)


def _quick_mode_text(entry: dict[str, Any]) -> str:
    if "nonce_octets" in entry:
        return f"{entry['nonce_octets']} octets"
    if "selector" in entry:
        return str(entry["selector"])
    if "notify" in entry:
        return _notify(entry)
    if "spis" in entry:
        return f"{spoken(entry['protocol'])} {' '.join(entry['spis'])}"
    if "group" in entry:
        group = entry["group"] or {"name": "group not named"}
        name = group["name"] or f"group {group['number']}"
        return f"{name}, public value of {entry.get('public_value_octets', entry['octets'])} octets"
    count = len(entry.get("proposals", ()))
    return f"{count} proposal{'s' if count != 1 else ''}" if "proposals" in entry else f"{entry['octets']} octets"


def _notify(entry: dict[str, Any]) -> str:
    parts = [spoken(entry["notify"])]
    if entry["spi"]:
        parts.append(f"{spoken(entry['protocol'])} SPI {entry['spi']}")
    if entry.get("meaning"):
        parts.append(entry["meaning"])
    elif entry["data"]:
        parts.append(f"data {entry['data']}")
    return ", ".join(parts)
