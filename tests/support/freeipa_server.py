"""A stand-in for a FreeIPA server, as a process: as much of it as Debian's `ipa service-add` and `ipa-getkeytab` ask.

FreeIPA's server is not in Debian, and wants a machine of its own. What is not real here: there is no directory, and who
has a ticket may do everything. What is: the realm, an MIT KDC as FreeIPA's is, in whose database services and their
keys are made; Negotiate over HTTPS; SASL's GSSAPI over LDAP with TLS; and both programs, which are Debian's, with
the description of version 2.164 of the API that they bring along and check commands by.

python -P freeipa_server.py ADDRESS DIRECTORY

``DIRECTORY`` has certificate.pem and key.pem; KRB5* variables lead to the realm's database and to the keys of HTTP and
ldap. It says "ready".
"""

from __future__ import annotations

import base64
import json
import shutil
import socketserver
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gssapi

KADMIN = shutil.which("kadmin.local") or "/usr/sbin/kadmin.local"
NO_SUCH_COMMAND = {"code": 905, "name": "CommandError", "message": "unknown command 'schema'"}
START_TLS = b"1.3.6.1.4.1.1466.20037"
GET_KEYTAB = b"2.16.840.1.113730.3.8.10.5"
SASL_IN_PROGRESS = 14  # RFC 4511 §4.1.9
NO_LAYER = b"\x01\x00\x00\x00"  # RFC 4752 §3.1: TLS is there already


def kadmin(*command: str) -> None:
    subprocess.run([KADMIN, *command], check=True, stdout=subprocess.DEVNULL)


def acceptor() -> gssapi.SecurityContext:
    return gssapi.SecurityContext(creds=gssapi.Credentials(usage="accept"), usage="accept")


class Api(BaseHTTPRequestHandler):
    """JSON-RPC, for who has a ticket."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "negotiate":
            self.answer(401, "Negotiate", {})
            return
        said = acceptor().step(base64.b64decode(token)) or b""
        result, error = answer(asked["method"], *asked["params"])
        content = {"result": result, "error": error, "id": asked["id"], "principal": "admin", "version": "4.9"}
        self.answer(200, f"Negotiate {base64.b64encode(said).decode()}", content)

    def log_message(self, *_: object) -> None:
        """Who asked is no news."""

    def answer(self, code: int, negotiate: str, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("WWW-Authenticate", negotiate)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def answer(method: str, arguments: list[Any], options: dict[str, Any]) -> tuple[Any, Any]:
    """Result and error of a command."""
    name = method.partition("/")[0]
    if name == "env":
        return {"result": {"api_version": "2.164"}, "total": 1, "count": 1, "summary": None}, None
    if name == "service_add":
        (principal,) = arguments
        kadmin("addprinc", "-randkey", principal)
        entry = {"dn": f"krbprincipalname={principal}", "krbprincipalname": [principal]}
        return {"result": entry, "value": principal, "summary": f'Added service "{principal}"'}, None
    return None, NO_SUCH_COMMAND


# BER (X.690), as much as there is of it in these messages.


def tlv(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    size = len(body)
    long = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([128 | len(long)]) + long) + body


def integer(value: int, tag: int = 2) -> bytes:
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def split(octets: bytes) -> list[tuple[int, bytes]]:
    """Tags and contents, one after another."""
    found = []
    while octets:
        tag, size, start = octets[0], octets[1], 2
        if size & 128:
            start += size & 127
            size = int.from_bytes(octets[2:start], "big")
        found.append((tag, octets[start : start + size]))
        octets = octets[start + size :]
    return found


class Directory(socketserver.BaseRequestHandler):
    """LDAP: StartTLS, SASL's GSSAPI, and the extended operation that gets keys."""

    secure: ssl.SSLContext

    def handle(self) -> None:
        context, layer = acceptor(), False
        while message := self.receive():
            (_, number), (tag, content), *_ = split(message)
            parts = split(content)
            if tag == 0x60:  # bind
                sasl = split(parts[2][1])
                token = sasl[1][1] if len(sasl) > 1 else b""
                if layer:
                    context.unwrap(token)
                    self.send(number, 0x61, 0)
                    continue
                said = context.step(token) if token and not context.complete else None
                if context.complete and not said:
                    said, layer = context.wrap(NO_LAYER, False).message, True
                self.send(number, 0x61, SASL_IN_PROGRESS, tlv(0x87, said or b""))
            elif tag == 0x77 and parts[0][1] == START_TLS:
                self.send(number, 0x78, 0)
                self.request = self.secure.wrap_socket(self.request, server_side=True)
            elif tag == 0x77 and parts[0][1] == GET_KEYTAB and layer:
                control = tlv(0x30, tlv(4, GET_KEYTAB), tlv(4, keys_for(parts[1][1])))
                self.send(number, 0x78, 0, tlv(0x8A, GET_KEYTAB), control=tlv(0xA0, control))
            elif tag == 0x42:  # unbind
                return
            else:
                self.send(number, 0x78, 2)

    def send(self, number: bytes, tag: int, code: int, *more: bytes, control: bytes = b"") -> None:
        result = tlv(tag, tlv(10, bytes([code])), tlv(4), tlv(4), *more)
        self.request.sendall(tlv(0x30, tlv(2, number), result, control))

    def receive(self) -> bytes:
        """The content of one message; nothing at the end."""
        head = self.exactly(2)
        if not head:
            return b""
        size = head[1]
        if size & 128:
            size = int.from_bytes(self.exactly(size & 127), "big")
        return self.exactly(size)

    def exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size and (more := self.request.recv(size - len(got))):
            got += more
        return got


def keys_for(request: bytes) -> bytes:
    """New keys of a service (FreeIPA's ipa-slapi-plugins, GetKeytabControl): newkeys [0] asked, reply [2] said."""
    ((_, choice),) = split(request)
    ((_, asked),) = split(choice)
    ((_, identity),) = split(split(asked)[0][1])
    with TemporaryDirectory() as directory:
        kadmin("ktadd", "-k", f"{directory}/keytab", identity.decode())
        kvno, keys = read_keytab(Path(directory, "keytab").read_bytes())
    each = [
        tlv(0x30, tlv(0xA0, tlv(0x30, tlv(0xA0, integer(enctype)), tlv(0xA1, tlv(4, key)))))
        for enctype, key in keys.items()
    ]
    return tlv(0xA2, tlv(0x30, integer(kvno), tlv(0x30, *each)))


def read_keytab(octets: bytes) -> tuple[int, dict[int, bytes]]:
    """Kvno and keys of one principal."""
    keys, kvno, at = {}, 0, 2
    while at < len(octets):
        size = int.from_bytes(octets[at : at + 4], "big")
        entry, at = octets[at + 4 : at + 4 + size], at + 4 + size
        components, rest = int.from_bytes(entry[:2], "big"), entry[2:]
        for _ in range(components + 1):
            rest = rest[2 + int.from_bytes(rest[:2], "big") :]
        kvno, enctype = rest[8], int.from_bytes(rest[9:11], "big")
        keys[enctype] = rest[13 : 13 + int.from_bytes(rest[11:13], "big")]
    return kvno, keys


def main(address: str, directory: str) -> None:
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(f"{directory}/certificate.pem", f"{directory}/key.pem")
    Directory.secure = secure
    api = ThreadingHTTPServer((address, 443), Api)
    api.socket = secure.wrap_socket(api.socket, server_side=True)
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    ldap = socketserver.ThreadingTCPServer((address, 389), Directory)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    print("ready", flush=True)
    ldap.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
