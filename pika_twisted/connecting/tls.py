"""The TLS of a connection, from what users write down: an `ssl.SSLContext` and the broker's name.

A context of the user's is used as it is. One that is made here, for an amqps URL, verifies the
chain, the host and its subjectAltName, and takes TLS 1.2 or newer. Twisted's own TLS options are
Twisted's: see `hostname_check`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
from twisted.internet import endpoints, interfaces
from twisted.protocols.policies import ProtocolWrapper

from pika_twisted.transport.tls_layer import TLSEndpoint, TLSLayer, UnlessEncrypted

__all__ = ["Secured", "TLSLayer", "UnlessEncrypted", "for_host", "from_pika", "from_url", "secured"]

_PEM_BEGIN, _PEM_END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_PRIVATE_KEY = b"PRIVATE KEY-----"
#: Pairs of names for one thing: `ssl.wrap_socket()`'s of old and those of `SSLContext`, as in pika.
_FILE, _FOLDER, _DATA = ("ca_certs", "cafile"), ("ca_path", "capath"), ("ca_data", "cadata")
_KNOWN = {
    *_FILE,
    *_FOLDER,
    *_DATA,
    *("certfile", "keyfile", "password", "ciphers", "protocol", "server_hostname"),
}
#: Of `ssl.wrap_socket()`, which pika passed them to before 1.0, and leaves out since. They can't
#: make a connection less secure than one without them.
_IGNORED = {"cert_reqs", "ssl_version", "server_side", "suppress_ragged_eofs"}
#: What `protocol` may be: a URL holds the numbers. None: any version from 1.2.
_PROTOCOLS = {
    int(ssl.PROTOCOL_TLS): None,
    int(ssl.PROTOCOL_TLS_CLIENT): None,
    3: ssl.TLSVersion.TLSv1,
    4: ssl.TLSVersion.TLSv1_1,
    5: ssl.TLSVersion.TLSv1_2,
}


@dataclass(frozen=True)
class Secured:
    """TLS by a context of the standard library's, to a host."""

    context: ssl.SSLContext
    hostname: str


def secured(tls: Any, host: str | None) -> Any:
    """A `Secured` for what `connect(tls=...)` takes, or Twisted's options, checked.

    :param host: that is connected to; None where an endpoint knows it alone
    :raises TypeError, ValueError: it can't be used
    """
    if isinstance(tls, Secured):
        return tls
    if tls is True or isinstance(tls, ssl.SSLContext):
        if host is None:
            raise TypeError(
                "tls has no host name to verify with an endpoint: pass "
                "tls=pika.SSLOptions(context, server_hostname)"
            )
        return for_host(host) if tls is True else Secured(tls, host)
    if isinstance(tls, pika.SSLOptions):
        return from_pika(tls, host)
    if interfaces.IOpenSSLClientConnectionCreator.providedBy(tls) or hasattr(tls, "getContext"):
        try:
            from pika_twisted.transport import hostname_check
        except ImportError as error:
            raise ImportError(
                f"Twisted's TLS needs pyOpenSSL and service_identity ({error}). Install them: "
                "python -m pip install 'Twisted[tls]'"
            ) from error
        return hostname_check.checked(tls)
    raise TypeError(
        "tls is True, an ssl.SSLContext, pika.SSLOptions, or what twisted.internet.ssl's "
        f"optionsForClientTLS() or CertificateOptions() gives, not {type(tls).__name__}"
    )


def wrapped(endpoint: Any, tls: Any, reactor: Any, layer: type[ProtocolWrapper] = TLSLayer) -> Any:
    """An endpoint that connects through another one, with what `secured()` gave."""
    if isinstance(tls, Secured):
        return TLSEndpoint(endpoint, tls.context, tls.hostname, reactor, layer)
    return endpoints.wrapClientTLS(tls, endpoint)


def for_host(host: str) -> Secured:
    """What TLS means when nothing else is said: the platform's authorities and the host's name."""
    context = _new_context()
    context.load_default_certs()
    return Secured(context, host)


def from_pika(options: Any, host: str | None) -> Secured:
    """The TLS of `pika.SSLOptions` for a host, which its own name for it goes before."""
    hostname = options.server_hostname or host
    if not hostname:
        raise TypeError("with an endpoint pika.SSLOptions need a server_hostname")
    return Secured(options.context, hostname)


def from_url(options: dict[str, Any], host: str) -> Secured:
    """The TLS of an amqps URL's `ssl_options`: files, read now.

    Known are pika's: ca_certs or cafile, ca_path or capath, ca_data or cadata, certfile, keyfile,
    password, ciphers, protocol, server_hostname.

    :raises TypeError, ValueError, OSError: naming the option; never with a password in it
    """
    _check_names(options)
    context = _new_context()
    version = options.get("protocol")
    if version is not None:
        if version not in _PROTOCOLS:
            raise ValueError("ssl_options: protocol is not a TLS protocol of Python's ssl module")
        only = _PROTOCOLS[version]
        if only is not None:
            context.minimum_version = context.maximum_version = only
    if options.get("ciphers"):
        try:
            context.set_ciphers(options["ciphers"])
        except ssl.SSLError:
            raise ValueError("ssl_options: OpenSSL knows none of the ciphers") from None
    if options.get("certfile"):
        _load_own(context, options)
    elif options.get("keyfile"):
        raise ValueError("ssl_options: keyfile needs a certfile, the certificate of that key")
    if not _load_authorities(context, options):
        context.load_default_certs()
    return Secured(context, options.get("server_hostname") or host)


def _new_context() -> ssl.SSLContext:
    """One that verifies. Not `create_default_context()`: its flags differ between Pythons.

    3.13 and later refuse certificates without an authority key identifier, which brokers have.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if context.minimum_version < ssl.TLSVersion.TLSv1_2:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    return context


def _check_names(options: dict[str, Any]) -> None:
    """TypeError for a value of a wrong type, ValueError for a name that means nothing."""
    for name, value in options.items():
        if name in _IGNORED:
            continue
        if name not in _KNOWN:
            # Not the name: one without its quotes in the right place may be a password.
            raise ValueError(f"ssl_options: unknown name; known are {', '.join(sorted(_KNOWN))}")
        kinds: Any = (str, bytes) if name in ("password", *_DATA) else str
        if name == "protocol":
            kinds = int
        if value is not None and not isinstance(value, kinds):
            raise TypeError(f"ssl_options: {name} can't be a {type(value).__name__}")


def _load_own(context: ssl.SSLContext, options: dict[str, Any]) -> None:
    """Load the client's certificate, the rest of its chain, and its key."""
    certfile = options["certfile"]
    keyfile = options.get("keyfile") or certfile
    if _PEM_BEGIN not in Path(certfile).read_bytes():
        raise ValueError(f"ssl_options: certfile {certfile!r} has no certificate in PEM")
    key = Path(keyfile).read_bytes()
    if _PRIVATE_KEY not in key:
        raise ValueError(f"ssl_options: keyfile {keyfile!r} has no private key in PEM")
    password = options.get("password")
    asked = []

    def give_password() -> str | bytes:
        asked.append(True)
        return password or b""  # OpenSSL would ask at the terminal

    try:
        context.load_cert_chain(certfile, keyfile, give_password)
    except (ssl.SSLError, ValueError) as why:
        if asked and password is None:
            text = f"keyfile {keyfile!r} is encrypted, and there is no password"
        elif getattr(why, "reason", None) == "KEY_VALUES_MISMATCH":
            text = f"the key in {keyfile!r} is not that of the certificate in {certfile!r}"
        elif asked:
            text = f"the password does not open keyfile {keyfile!r}"
        else:
            text = f"OpenSSL can't read certfile {certfile!r} and keyfile {keyfile!r}"
        raise ValueError(f"ssl_options: {text}") from None


def _load_authorities(context: ssl.SSLContext, options: dict[str, Any]) -> bool:
    """Load what the options name; False where they name nothing."""
    named = False
    if file := _either(options, _FILE):
        named = True
        _load(context, Path(file).read_bytes(), f"{_FILE[0]} {file!r}")
    if folder := _either(options, _FOLDER):
        named = True
        found = [path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()]
        pem = b"\n".join(each for each in found if _PEM_BEGIN in each)
        _load(context, pem, f"{_FOLDER[0]} {folder!r}")
    if data := _either(options, _DATA):
        named = True
        _load(context, data, _DATA[0])
    return named


def _either(options: dict[str, Any], names: tuple[str, str]) -> Any:
    return options.get(names[0]) or options.get(names[1])


def _load(context: ssl.SSLContext, data: str | bytes, where: str) -> None:
    """Load authorities: PEM, or DER as bytes."""
    pem = data.encode("ascii", "replace") if isinstance(data, str) else data
    try:
        if _PEM_BEGIN in pem:
            context.load_verify_locations(cadata=_only_certificates(pem))
        else:
            context.load_verify_locations(cadata=data or b"-")
    except (ssl.SSLError, ValueError):
        raise ValueError(f"ssl_options: {where} holds no certificate of an authority") from None


def _only_certificates(pem: bytes) -> str:
    """The certificates of a file, without what stands between them."""
    parts = [part[part.find(_PEM_BEGIN) :] for part in pem.split(_PEM_END) if _PEM_BEGIN in part]
    return b"".join(part + _PEM_END + b"\n" for part in parts).decode("ascii", "replace")
