"""TLS the way Twisted does it, from what pika's users write down.

Verified by default, host name included. From an `ssl.SSLContext` (`pika.SSLOptions`) everything is
carried over that can be read out of one: loaded CA certificates, verify mode, host-name check,
lowest and highest TLS version. A client certificate can't; the files named in the `ssl_options` of
an amqps URL are loaded here.
"""

from __future__ import annotations

import ssl as stdlib_ssl
from functools import cache
from pathlib import Path
from typing import Any

from twisted.internet import interfaces
from twisted.internet.abstract import isIPAddress, isIPv6Address
from zope.interface import implementer

try:
    from OpenSSL import SSL, crypto
    from twisted.internet import ssl

    from pika_twisted.transport.hostname_check import VerifiedHost
except ImportError as error:
    raise ImportError(
        f"TLS needs pyOpenSSL and service_identity ({error}). Install them: "
        "python -m pip install 'Twisted[tls]'"
    ) from error

#: What `ssl.TLSVersion` calls the versions that Twisted can be told.
_VERSIONS = {
    stdlib_ssl.TLSVersion.TLSv1: ssl.TLSVersion.TLSv1_0,
    stdlib_ssl.TLSVersion.TLSv1_1: ssl.TLSVersion.TLSv1_1,
    stdlib_ssl.TLSVersion.TLSv1_2: ssl.TLSVersion.TLSv1_2,
    stdlib_ssl.TLSVersion.TLSv1_3: ssl.TLSVersion.TLSv1_3,
}
_ONLY_VERSION = {
    "PROTOCOL_TLSv1": ssl.TLSVersion.TLSv1_0,
    "PROTOCOL_TLSv1_1": ssl.TLSVersion.TLSv1_1,
    "PROTOCOL_TLSv1_2": ssl.TLSVersion.TLSv1_2,
}
_PEM_END = b"-----END CERTIFICATE-----"


@implementer(interfaces.IOpenSSLClientConnectionCreator)
class UnverifiedHostname:
    """A TLS client that sends a server name and doesn't compare it (`check_hostname = False`)."""

    def __init__(self, options: ssl.CertificateOptions, hostname: str) -> None:
        self._context = options.getContext()
        self._hostname = hostname

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Called by Twisted for each connection."""
        connection = SSL.Connection(self._context, None)
        if not isIPAddress(self._hostname) and not isIPv6Address(self._hostname):
            connection.set_tlsext_host_name(self._hostname.encode("idna"))
        return connection


def for_host(hostname: str) -> Any:
    """What TLS means when nothing else is said: the platform's authorities and the host's name."""
    return _verifying(hostname)


def _verifying(hostname: str, **how: Any) -> VerifiedHost:
    return VerifiedHost(ssl.optionsForClientTLS(hostname, **how), hostname)


def from_pika(options: Any, host: str) -> Any:
    """Twisted's TLS options for `pika.SSLOptions` and the host to connect to."""
    context = options.context
    hostname = options.server_hostname or host
    extra = _version_range(
        _VERSIONS.get(context.minimum_version), _VERSIONS.get(context.maximum_version)
    )
    if context.verify_mode == stdlib_ssl.CERT_NONE:
        return UnverifiedHostname(ssl.CertificateOptions(**extra), hostname)
    authorities = [
        ssl.Certificate.load(octets, crypto.FILETYPE_ASN1)
        for octets in context.get_ca_certs(binary_form=True)
    ]
    # A context whose authorities are in a folder lists only those that it has used already.
    trust: Any = ssl.trustRootFromCertificates(authorities) if authorities else ssl.platformTrust()
    if not context.check_hostname:
        return UnverifiedHostname(ssl.CertificateOptions(trustRoot=trust, **extra), hostname)
    return _verifying(hostname, trustRoot=trust, extraCertificateOptions=extra)


def _version_range(lowest: Any, highest: Any) -> dict[str, Any]:
    """Twisted's options for the lowest and highest TLS version; None where nothing is said."""
    if highest is not None and _highest_is_left_out():
        if lowest is None and highest < ssl.TLSVersion.TLSv1_2:  # which is Twisted's lowest
            lowest = highest
        above = [version for version in _VERSIONS.values() if version > highest]
        highest = above[0] if above else None
    extra = {"insecurelyLowerMinimumTo": lowest, "lowerMaximumSecurityTo": highest}
    return {name: version for name, version in extra.items() if version is not None}


@cache
def _highest_is_left_out() -> bool:
    """Whether Twisted forbids the very version that is to be the highest, as it does up to 25.5."""
    options = ssl.CertificateOptions(lowerMaximumSecurityTo=ssl.TLSVersion.TLSv1_2)
    return bool(options.getContext().set_options(0) & SSL.OP_NO_TLSv1_2)


def from_url(options: dict[str, Any], host: str) -> Any:
    """Twisted's TLS options for the `ssl_options` of an amqps URL: files, loaded here.

    Known are pika's: ca_certs or cafile, ca_path or capath, ca_data or cadata, certfile, keyfile,
    password, ciphers, protocol, server_hostname.
    """
    extra: dict[str, Any] = {}
    if "ciphers" in options:
        extra["acceptableCiphers"] = ssl.AcceptableCiphers.fromOpenSSLCipherString(
            options["ciphers"]
        )
    only = _ONLY_VERSION.get(getattr(options.get("protocol"), "name", ""))
    extra.update(_version_range(only, only))
    own = None
    if options.get("certfile"):
        own, extra["extraCertChain"] = _client_certificate(options)
    authorities = _authorities(options)
    trust: Any = ssl.trustRootFromCertificates(authorities) if authorities else None
    return _verifying(
        options.get("server_hostname") or host,
        trustRoot=trust,
        clientCertificate=own,
        extraCertificateOptions=extra,
    )


def _client_certificate(options: dict[str, Any]) -> tuple[ssl.PrivateCertificate, list[Any]]:
    """The client's certificate with its key, and the rest of its chain."""
    first, *rest = _split_pem(Path(options["certfile"]).read_bytes())
    key_pem = Path(options.get("keyfile") or options["certfile"]).read_bytes()
    password = options.get("password")
    if isinstance(password, str):
        password = password.encode()
    key = crypto.load_privatekey(crypto.FILETYPE_PEM, key_pem, passphrase=password)
    pair = ssl.PrivateCertificate.fromCertificateAndKeyPair(
        ssl.Certificate.loadPEM(first), ssl.KeyPair(key)
    )
    return pair, [crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in rest]


def _authorities(options: dict[str, Any]) -> list[ssl.Certificate]:
    found: list[ssl.Certificate] = []
    if file := options.get("ca_certs") or options.get("cafile"):
        found += _certificates(Path(file).read_bytes())
    if folder := options.get("ca_path") or options.get("capath"):
        for path in sorted(Path(folder).iterdir()):
            found += _certificates(path.read_bytes()) if path.is_file() else []
    if data := options.get("ca_data") or options.get("cadata"):
        if isinstance(data, str):
            found += _certificates(data.encode("ascii"))
        else:
            found.append(ssl.Certificate.load(data, crypto.FILETYPE_ASN1))
    if not found and any(options.get(name) for name in ("ca_certs", "cafile", "ca_path", "capath")):
        raise ValueError("ssl_options name no certificate of an authority")
    return found


def _certificates(pem: bytes) -> list[ssl.Certificate]:
    return [ssl.Certificate.loadPEM(part) for part in _split_pem(pem)]


def _split_pem(pem: bytes) -> list[bytes]:
    """Each certificate of a file of several."""
    parts = []
    for part in pem.split(_PEM_END)[:-1]:
        begin = part.find(b"-----BEGIN CERTIFICATE-----")
        if begin >= 0:
            parts.append(part[begin:] + _PEM_END + b"\n")
    return parts
