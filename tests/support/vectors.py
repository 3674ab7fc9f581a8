"""The captured exchanges of tests/vectors/racoon2, typed. tests/vectors/README.md says where they come from."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

RACOON2 = Path(__file__).parent.parent / "vectors" / "racoon2"

# The service keys, by the host whose keytab it is; "c" is a principal that no exchange uses.
KEYTABS = {host: RACOON2 / "common" / f"{host}.keytab" for host in "abc"}


class Layer(Enum):
    """Who refuses a bad message that comes alone, to a responder whose clock suits its authenticator."""

    WIRE = "parse_message raises MalformedMessage"
    CHECKSUM = "the AP-REQ is good, the Cksum does not verify"
    EXCHANGE = "well formed, but not a message that the exchange knows"
    REPLAY = "good the first time; the second time the AP-REQ's authenticator has been seen"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a deliberately bad message must be refused.

    Args:
        layer: the first layer that can know.
        reason: in a sentence.
        code: the KINK_ERROR code to answer with (RFC 4430 §4.2.8), None where nothing is answered.
    """

    layer: Layer
    reason: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A ticket's session key as the independent decoder found it."""

    enctype: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class KernelKeys:
    """What ``ip xfrm state`` showed: the keys the kernel of the other implementation used."""

    encryption: bytes
    authentication: bytes


@dataclass(frozen=True, slots=True)
class Keymat:
    """The keying material of one SA (RFC 4430 §7).

    Args:
        inbound_of: "initiator" or "responder": whose inbound SPI it is.
        spi: four octets.
        seed: protocol | SPI | Ni_b [| Nr_b].
        ni, nr: nonces without their headers; ``nr`` is empty in a 2-way exchange.
        literal: 80 octets of KEYMAT with RFC 3962's PRF read literally (20 octets), as racoon2 does.
        library: 80 octets of KEYMAT with the PRF of Kerberos libraries (16 octets).
        kernel: None where the kernel's state was not captured.
    """

    inbound_of: str
    spi: bytes
    seed: bytes
    ni: bytes
    nr: bytes
    literal: bytes
    library: bytes
    kernel: KernelKeys | None


@dataclass(frozen=True, slots=True)
class VectorMessage:
    """One datagram of a capture.

    Args:
        vector: folder name.
        index: place in the capture, from 0.
        at: seconds since the first datagram.
        source, destination: "address:port".
        datagram: as on the wire.
        plaintext: inside KINK_ENCRYPT, None where there is none or it could not be opened.
        session_key: of the transaction's ticket, None where the decoder had no key.
        client, server: principals of the AP-REQ's ticket, None in messages without AP-REQ.
        authenticator_time: POSIX seconds of the AP-REQ's authenticator, None in messages without AP-REQ.
        checksum_ok: what the independent decoder says of Cksum, None without Cksum or where it gave up before.
        outer, inner: payload types the independent decoder saw, outside and inside KINK_ENCRYPT.
        decoder_refused: whether the independent decoder found the message bad.
        keymat: in a REPLY that makes SAs, initiator's inbound first.
        refusal: None for a good message.
    """

    vector: str
    index: int
    at: float
    source: str
    destination: str
    datagram: bytes
    plaintext: bytes | None
    session_key: SessionKey | None
    client: str | None
    server: str | None
    authenticator_time: float | None
    checksum_ok: bool | None
    outer: tuple[str, ...]
    inner: tuple[str, ...]
    decoder_refused: bool
    keymat: tuple[Keymat, ...] = field(default=())
    refusal: Refusal | None = None

    def __str__(self) -> str:
        return f"{self.vector}-{self.index}"


# RFC 4430 §4 and §4.2.8. The other implementation is silent about the two message types, so are we: no command, no
# answer. It answers the minor version, we must ignore RESRVED, so that the altered message falls to its Cksum.
REFUSALS = {
    ("error-kink", 0): Refusal(Layer.WIRE, "major version 2", 3),
    ("error-kink", 2): Refusal(
        Layer.CHECKSUM, "minor version 1: RESRVED is ignored, but it was changed under the Cksum"
    ),
    ("error-kink", 4): Refusal(Layer.WIRE, "DOI 2", 2),
    ("error-kink", 6): Refusal(Layer.WIRE, "Payload Length beyond the end", 1),
    ("error-kink", 8): Refusal(Layer.WIRE, "payload type 9", 1),
    ("error-kink", 10): Refusal(Layer.WIRE, "Length is 20 more than the datagram", 1),
    ("error-kink", 12): Refusal(Layer.CHECKSUM, "GETTGT: Type was changed under the Cksum"),
    ("error-kink", 13): Refusal(Layer.WIRE, "message type 0"),
    ("error-kink", 14): Refusal(Layer.WIRE, "message type 9"),
    ("error-kink", 15): Refusal(Layer.CHECKSUM, "RESERVED2 is ignored, but it was changed under the Cksum"),
    ("error-kink", 17): Refusal(Layer.EXCHANGE, "no payload at all"),
    ("error-kink", 18): Refusal(Layer.CHECKSUM, "Cksum broken"),
    ("error-kink", 19): Refusal(Layer.REPLAY, "verbatim copy of a message of another capture"),
    ("error-kink", 20): Refusal(Layer.REPLAY, "octets after Length are allowed; without them it is message 19 again"),
}


@functools.cache
def load_messages() -> tuple[VectorMessage, ...]:
    """Every datagram of every capture, in the order of folder names and of time."""
    folders = sorted(path.parent for path in RACOON2.glob("*/kink.json"))
    return tuple(message for folder in folders for message in _load_folder(folder))


def load_vector(name: str) -> tuple[VectorMessage, ...]:
    """The datagrams of one capture, in the order of time."""
    return tuple(message for message in load_messages() if message.vector == name)


def _load_folder(folder: Path) -> list[VectorMessage]:
    records = json.loads((folder / "kink.json").read_text())
    kernel = _read_kernel_keys(folder)
    session_keys: dict[tuple[str, str, int], SessionKey] = {}
    messages = []
    for index, record in enumerate(records):
        ap_req = _payload(record, "KINK_AP_REQ")
        here, there = (record[end].partition(":")[0] for end in ("src", "dst"))
        if "session_key" in ap_req:
            key = SessionKey(ap_req["session_etype"], bytes.fromhex(ap_req["session_key"]))
            session_keys[here, there, record["xid"]] = session_keys[there, here, record["xid"]] = key
        plaintext = _payload(record, "KINK_ENCRYPT").get("plaintext")
        message = VectorMessage(
            vector=folder.name,
            index=index,
            at=record["t"],
            source=record["src"],
            destination=record["dst"],
            datagram=bytes.fromhex(record["hex"]),
            plaintext=None if plaintext is None else bytes.fromhex(plaintext),
            session_key=session_keys.get((here, there, record["xid"])),
            client=ap_req.get("client"),
            server=ap_req.get("server"),
            authenticator_time=_posix(ap_req),
            checksum_ok=record.get("cksum_ok"),
            outer=_payload_types(record, encrypted=False),
            inner=_payload_types(record, encrypted=True),
            decoder_refused="error" in record,
            keymat=tuple(_load_keymat(entry, kernel) for entry in record.get("keymat", ())),
            refusal=REFUSALS.get((folder.name, index)),
        )
        messages.append(message)
    return messages


def _payload(record: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((payload for payload in record["payloads"] if payload["type"] == kind), {})


def _payload_types(record: dict[str, Any], encrypted: bool) -> tuple[str, ...]:
    return tuple(payload["type"] for payload in record["payloads"] if payload["encrypted"] == encrypted)


def _posix(ap_req: dict[str, Any]) -> float | None:
    if "ctime" not in ap_req:
        return None
    seconds = datetime.strptime(ap_req["ctime"], "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    return seconds + int(ap_req["cusec"]) / 1e6


def _load_keymat(entry: dict[str, Any], kernel: dict[bytes, KernelKeys]) -> Keymat:
    spi = bytes.fromhex(entry["spi"])
    octets = {name: bytes.fromhex(entry[name]) for name in ("seed", "ni", "nr")}
    literal, library = bytes.fromhex(entry["prf20"]), bytes.fromhex(entry["prf16"])
    inbound_of = entry["sa"].removesuffix("-inbound")
    return Keymat(inbound_of, spi, **octets, literal=literal, library=library, kernel=kernel.get(spi))


def _read_kernel_keys(folder: Path) -> dict[bytes, KernelKeys]:
    """From ``ip -s xfrm state``: per SPI the words after ``enc NAME`` and ``auth-trunc NAME``."""
    keys = {}
    for path in sorted(folder.glob("xfrm-state-*.txt")):
        for state in path.read_text().split("src ")[1:]:
            words = state.split()
            if "spi" in words and "auth-trunc" in words:
                spi = bytes.fromhex(words[words.index("spi") + 1].partition("(")[0].removeprefix("0x"))
                keys[spi] = KernelKeys(_key(words, "enc"), _key(words, "auth-trunc"))
    return keys


def _key(words: list[str], kind: str) -> bytes:
    return bytes.fromhex(words[words.index(kind) + 2].removeprefix("0x"))
