"""The broker's certificate has to be for the host that was asked for, whatever Twisted lets pass.

Twisted 26.4 and 26.10 look at the certificate within OpenSSL's verify callback, and there take
service_identity's CertificateError for an accident: it is logged and the certificate accepted. A
certificate with no subjectAltName, or with an IP address written as a DNS name, was valid for every
host. This check goes in its place. It fails closed: any exception refuses the certificate.
"""

from __future__ import annotations

import inspect
import ssl as stdlib_ssl
import weakref
from collections.abc import Callable
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from service_identity import CertificateError
from service_identity import cryptography as service_identity
from twisted.internet import interfaces, ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

#: What `optionsForClientTLS()` gives: the one kind of Twisted's options that verifies a host.
_ClientTLSOptions = type(ssl.optionsForClientTLS("localhost"))


@implementer(interfaces.IOpenSSLClientConnectionCreator)
class VerifiedHost:
    """Twisted's TLS options for a client, with this module's check of the host.

    :param creator: what makes the connection; it verifies the chain of the certificate
    :param hostname: a DNS name, in Unicode or IDNA's ASCII, or an IP address
    """

    def __init__(self, creator: Any, hostname: str) -> None:
        self._creator = creator
        self._hostname = hostname

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Called by Twisted for each connection."""
        connection: SSL.Connection = self._creator.clientConnectionForTLS(protocol)
        _verify_host(connection, protocol, self._hostname)
        return connection


def checked(creator: Any) -> Any:
    """A user's TLS options, with this module's check where they are to verify a host."""
    if isinstance(creator, _ClientTLSOptions):
        return VerifiedHost(creator, creator._hostnameASCII)
    return creator


def check_wrapped(transport: Any) -> None:
    """Check the host of TLS that an endpoint of the user's does, before its handshake begins."""
    while isinstance(transport, ProtocolWrapper):
        if isinstance(transport, TLSMemoryBIOProtocol):
            creator = _creator_of(transport.factory)
            if isinstance(creator, _ClientTLSOptions):
                _verify_host(transport.getHandle(), transport, creator._hostnameASCII)
        transport = transport.transport


def _creator_of(factory: Any) -> Any:
    """The options that a `TLSMemoryBIOFactory` was given; None where it doesn't tell."""
    make = getattr(factory, "_creatorCallable", None)  # newer Twisteds: a function with a closure
    if not inspect.isfunction(make):
        return getattr(factory, "_connectionCreator", None)
    bound = inspect.getclosurevars(make).nonlocals.get("baseCallable")
    return getattr(bound, "__self__", None)


def _verify_host(connection: Any, protocol: Any, hostname: str) -> None:
    """Have OpenSSL refuse a certificate that is not for `hostname`."""
    if not hasattr(connection, "set_verify"):
        return  # a pyOpenSSL that is too old for a Twisted that needs this
    mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    connection.set_verify(mode, _verifier(weakref.ref(protocol), hostname))


def _verifier(protocol: Callable[[], Any], hostname: str) -> Callable[..., bool]:
    """OpenSSL's verify callback: called for each certificate of the chain, the broker's last."""

    def verify(_connection: Any, certificate: Any, error: int, depth: int, ok: int) -> bool:
        if ok and depth:
            return True
        try:
            if not ok:
                raise _refusal(error)
            _check(certificate.to_cryptography(), hostname)
        except Exception:
            layer = protocol()
            if layer is not None:
                layer.failVerification(Failure())
            return False
        return True

    return verify


def _refusal(code: int) -> stdlib_ssl.SSLCertVerificationError:
    """OpenSSL's reason, in the shape of the standard library's, which says the code."""
    error = stdlib_ssl.SSLCertVerificationError(
        1, f"certificate verify failed: OpenSSL's verify error {code}"
    )
    error.verify_code, error.verify_message = code, f"OpenSSL's verify error {code}"
    return error


def _check(certificate: x509.Certificate, hostname: str) -> None:
    """Raise unless the certificate is for this host."""
    # service_identity before 23.1 takes the common name where there is none of these.
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise CertificateError("it has no subjectAltName") from None
    if not any(isinstance(each, (x509.DNSName, x509.IPAddress)) for each in names):
        raise CertificateError("its subjectAltName has neither a DNS name nor an IP address")
    if isIPAddress(hostname) or isIPv6Address(hostname):
        service_identity.verify_certificate_ip_address(certificate, hostname)
    else:
        service_identity.verify_certificate_hostname(certificate, hostname)
