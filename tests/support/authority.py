"""An authority that issues certificates as wrong as a test wants them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def new_key(bits: int = 0) -> Any:
    """An EC key, or an RSA key of so many bits."""
    if bits:
        return rsa.generate_private_key(65537, bits)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Any, password: bytes | None = None) -> bytes:
    lock: Any = serialization.NoEncryption()
    if password is not None:
        lock = serialization.BestAvailableEncryption(password)
    return bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock))


class Authority:
    """A root with its key; `folder` gets the files."""

    def __init__(self, folder: Path, common_name: str = "test authority") -> None:
        self.folder = folder
        self.key = new_key()
        self.name = name(common_name)
        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        self.certificate = (
            self._builder(common_name, self.key, -DAY, DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        self.file = folder / f"{common_name.replace(' ', '-')}.pem"
        self.file.write_bytes(self.certificate.public_bytes(PEM))

    def _builder(
        self, common_name: str, key: Any, begin: datetime.timedelta, end: datetime.timedelta
    ) -> Any:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(name(common_name))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
        )

    def issue(
        self,
        file: str,
        names: Sequence[str] = ("localhost",),
        *,
        addresses: Sequence[str] = (),
        common_name: str = "localhost",
        begin: datetime.timedelta = -DAY,
        end: datetime.timedelta = DAY,
        bits: int = 0,
        password: bytes | None = None,
    ) -> tuple[Path, Path, x509.Certificate]:
        """The files of a certificate and its key, and the certificate; without names no SAN."""
        key = new_key(bits)
        builder = self._builder(common_name, key, begin, end).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        if names or addresses:
            given: list[x509.GeneralName] = [x509.DNSName(each) for each in names]
            given += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(given), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        signed = builder.add_extension(issuer, critical=False).sign(self.key, hashes.SHA256())
        files = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        files[0].write_bytes(signed.public_bytes(PEM))
        files[1].write_bytes(key_pem(key, password))
        return *files, signed

    def revoke(self, file: str, *certificates: x509.Certificate) -> Path:
        """The file of a revocation list with these certificates."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now - DAY)
            .next_update(now + DAY)
        )
        for certificate in certificates:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now - DAY)
                .build()
            )
        path = self.folder / f"{file}.crl"
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(PEM))
        return path
