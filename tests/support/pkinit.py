"""A realm whose principals have certificates and no keys: PKINIT (RFC 4556), with a CA made on the spot."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from pathlib import Path

KDC_CONF = """\
        pkinit_identity = FILE:{directory}/kdc.pem,{directory}/kdc.key
        pkinit_anchors = FILE:{directory}/ca.pem
"""
CLIENT_CONF = """\
        pkinit_anchors = FILE:{directory}/ca.pem
        pkinit_kdc_hostname = {kdc}
        pkinit_eku_checking = kpServerAuth
"""
CLIENT_AUTHENTICATION = x509.ObjectIdentifier("1.3.6.1.5.2.3.4")  # id-pkinit-KPClientAuth (RFC 4556 §3.2.2)
SIGNING = x509.KeyUsage(  # MIT wants digitalSignature beside the extended usage
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
KDC_NAME = "kdc.kinkvpn.test"


class Authority:
    """Issues certificates into a directory.

    Args:
        directory: where everything goes.
    """

    def __init__(self, directory: Path) -> None:
        self.certificate = directory / "ca.pem"
        self._key = rsa.generate_private_key(65537, 2048)
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kinkvpn test CA")])
        authority = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self.certificate.write_bytes(self._signed(authority))

    def issue(self, common_name: str, stem: Path, *, server: bool = False) -> None:
        """Writes ``stem``.pem and ``stem``.key for ``common_name``."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        usage = x509.ExtendedKeyUsageOID.SERVER_AUTH if server else CLIENT_AUTHENTICATION
        builder = (
            self._builder(subject, key)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(SIGNING, critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if server:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        stem.with_suffix(".pem").write_bytes(self._signed(builder))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        stem.with_suffix(".key").write_bytes(private)

    def _builder(self, subject: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class PkinitRealm(Realm):
    """An MIT realm; a :class:`kinkvpn.demo.realm.KerberosRealm` whose services have no keys."""

    def start(self) -> None:
        """With a certificate for the KDC, and a CA that all of the realm trusts."""
        if not self.krb5_conf.exists():
            super().start()  # makes the files and the database
            self.stop()
            self._authority = Authority(self.directory)
            self._authority.issue(KDC_NAME, self.directory / "kdc", server=True)
            insert(self.directory / "kdc.conf", "        database_name", KDC_CONF.format(directory=self.directory))
            insert(self.krb5_conf, "        kdc = ", CLIENT_CONF.format(directory=self.directory, kdc=KDC_NAME))
        super().start()

    def add_service(self, principal: str, *options: str) -> None:
        """A principal without a key, which a certificate for its own name as CN is good for."""
        self.kadmin("addprinc", "-nokey", "+requires_preauth", *options, principal)
        self.kadmin("setstr", principal, "pkinit_cert_match", f"<SUBJECT>CN={common_name(principal)}$")

    def write_keytab(self, principal: str, path: Path) -> None:
        """There are no keys to write: a certificate goes beside where they would be, ``path`` with .pem and .key."""
        self._authority.issue(common_name(principal), path)


def common_name(principal: str) -> str:
    """CN of its certificate."""
    return principal.partition("@")[0].replace("/", "-")


def insert(path: Path, before: str, lines: str) -> None:
    """Puts ``lines`` before the first line that starts with ``before``."""
    head, found, rest = path.read_text().partition(f"\n{before}")
    assert found
    path.write_text(f"{head}\n{lines.rstrip()}{found}{rest}")
