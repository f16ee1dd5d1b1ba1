"""What OpenSSL, and those who use it, say when TLS fails, in words that help."""

from __future__ import annotations

import ssl

#: OpenSSL's words for "this is no TLS at all".
_NO_TLS = ("wrong version number", "record layer failure", "packet length too long")
_NO_TLS_HINT = ". The port does not speak TLS: brokers have it on another one, mostly 5671"
#: ... for "your certificate is missing, or not to my liking".
_ABOUT_OUR_CERTIFICATE = ("certificate required", "bad certificate", "handshake failure")
_CERTIFICATE_HINT = (
    "; if the broker wants a client certificate: load it with ssl.SSLContext.load_cert_chain() and "
    "pass the context as connect(tls=context), name its files (certfile, keyfile) in the "
    "ssl_options of an amqps URL, or optionsForClientTLS(..., clientCertificate=...)"
)
_ABOUT_VERSIONS = ("protocol version", "unsupported protocol", "no protocols available")
_VERSIONS_HINT = (
    ". The broker and this side have no TLS version in common: this side wants 1.2 or newer, "
    "unless an ssl.SSLContext says otherwise"
)
_ENDED_HINT = (
    "the peer closed the connection. Is it the broker's port for TLS, mostly 5671, and what does "
    "the broker's log say?"
)
_AUTHORITY = (
    "the authority of the broker's certificate is not known here. If it is your own, name its "
    "file: ca_certs in the ssl_options of an amqps URL, or "
    "connect(tls=ssl.create_default_context(cafile=...)), or "
    "optionsForClientTLS(host, trustRoot=authority)"
)
_NOT_THE_HOST = (
    "the broker's certificate is not for this host: its subjectAltName has to name the host that "
    "you connect to; the common name does not count"
)
_WEAK = "a key or a signature in the broker's certificate chain is too weak for this side's OpenSSL"
#: By OpenSSL's X509_V_ERR_...
_BY_CODE = {
    3: "the SSLContext checks revocation lists, and has none of the certificate's authority: load "
    "one with load_verify_locations()",
    9: "the broker's certificate, or its authority's, is not valid yet. Is this machine's clock "
    "right?",
    10: "the broker's certificate, or its authority's, has expired. It has to be renewed at the "
    "broker, unless this machine's clock is wrong",
    12: "the revocation list has expired",
    18: _AUTHORITY,
    19: _AUTHORITY,
    20: _AUTHORITY,
    21: _AUTHORITY,
    23: "the broker's certificate has been revoked by its authority",
    62: _NOT_THE_HOST,
    64: _NOT_THE_HOST,
    66: _WEAK,
    67: _WEAK,
    68: _WEAK,
}


def is_tls_error(why: BaseException) -> bool:
    """Whether it comes from TLS; by the name of the module, to import no OpenSSL without need."""
    return isinstance(why, ssl.SSLError) or type(why).__module__.split(".")[0] in (
        "OpenSSL",
        "service_identity",
    )


def text_of(why: BaseException) -> str:
    """What failed, and what to look at next."""
    if type(why).__module__.startswith("service_identity"):
        return f"{_NOT_THE_HOST} ({why or repr(why)})"
    if isinstance(why, ssl.SSLCertVerificationError):
        return _of_certificate(why)
    if isinstance(why, ssl.SSLEOFError):
        return _ENDED_HINT
    text = _words(why)
    if any(words in text for words in _ABOUT_OUR_CERTIFICATE):
        return text + _CERTIFICATE_HINT
    if any(words in text for words in _NO_TLS):
        return text + _NO_TLS_HINT
    if any(words in text for words in _ABOUT_VERSIONS):
        return text + _VERSIONS_HINT
    if "certificate verify failed" in text:  # without a code: Twisted's TLS
        return f"{text}. It may be that {_AUTHORITY}"
    return text


def _of_certificate(why: ssl.SSLCertVerificationError) -> str:
    code = getattr(why, "verify_code", None)
    said = getattr(why, "verify_message", None) or str(why.args[-1] if why.args else why)
    known = _BY_CODE.get(code) if isinstance(code, int) else _NOT_THE_HOST
    return f"certificate verify failed: {said}" if known is None else f"{known} ({said})"


def _words(why: BaseException) -> str:
    """OpenSSL's reasons: pyOpenSSL's errors carry lists of (library, function, reason)."""
    entries = why.args[0] if why.args and isinstance(why.args[0], list) else []
    text = ", ".join(str(entry[-1]) for entry in entries if isinstance(entry, tuple))
    if not text and getattr(why, "reason", None):  # of the standard library: WRONG_VERSION_NUMBER
        text = str(why.reason).replace("_", " ").lower()  # type: ignore[attr-defined]
    return text or str(why) or repr(why)
