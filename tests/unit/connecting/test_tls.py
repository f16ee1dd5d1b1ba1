"""TLS options from what pika's users write, in handshakes that happen in memory."""

from __future__ import annotations

import ssl as stdlib_ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
import pytest
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from twisted.internet import ssl
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from pika_twisted.connecting import tls
from pika_twisted.connecting.targets import places
from tests.broker.certificates import CertificateFiles, write_certificates

NAME = "localhost"
OTHER = "broker.example"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return write_certificates(tmp_path_factory.mktemp("certificates"))


class Asked:
    """What the server has seen of a client."""

    name: bytes | None = None
    certificate: Any = None
    version = ""
    cipher: str | None = None


def handshake(creator: Any, files: CertificateFiles, lowest: int = 0, highest: int = 0) -> Asked:
    """Between the client that Twisted would make and a server, octets carried by hand."""
    asked = Asked()
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_file(str(files.certificate))
    context.use_privatekey_file(str(files.key))
    if highest:
        context.set_min_proto_version(lowest)
        context.set_max_proto_version(highest)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    context.set_tlsext_servername_callback(
        lambda connection: setattr(asked, "name", connection.get_servername())
    )
    server = SSL.Connection(context, None)
    server.set_accept_state()
    wrapped = Wrapped()
    factory = TLSMemoryBIOFactory(creator, True, Factory.forProtocol(lambda: wrapped))
    client, wire = factory.buildProtocol(None), StringTransport()
    client.makeConnection(wire)
    for _ in range(10):
        if octets := wire.value():
            wire.clear()
            server.bio_write(octets)
        try:
            server.do_handshake()
        except SSL.Error:  # more is needed; or it is over, and the client knows or is told why
            pass
        if octets := sent_by(server):
            client.dataReceived(octets)
    if wire.disconnecting or wire.disconnected:
        client.connectionLost(Failure(ConnectionDone()))
        assert wrapped.lost is not None
        raise wrapped.lost
    asked.certificate = server.get_peer_certificate()
    asked.cipher = server.get_cipher_name()
    asked.version = server.get_protocol_version_name()
    return asked


class Wrapped(Protocol):
    lost: Exception | None = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.value


def sent_by(connection: Any) -> bytes:
    try:
        return connection.bio_read(1 << 16)
    except SSL.WantReadError:
        return b""


def context(files: CertificateFiles | None = None, **attributes: Any) -> Any:
    made = stdlib_ssl.SSLContext(stdlib_ssl.PROTOCOL_TLS_CLIENT)
    if files is not None:
        made.load_verify_locations(files.authority)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def from_pika(made: Any, host: str, server_hostname: str | None = None) -> Any:
    return tls.from_pika(pika.SSLOptions(made, server_hostname), host)


# pika.SSLOptions


def test_the_context_s_authorities_and_the_host(files: CertificateFiles) -> None:
    assert handshake(from_pika(context(files), NAME), files).name == NAME.encode()
    with pytest.raises(VerificationError):
        handshake(from_pika(context(files), OTHER), files)
    # Another name than the one connected to, because the user says so.
    assert handshake(from_pika(context(files), OTHER, NAME), files).name == NAME.encode()


def test_a_context_without_authorities_means_the_platform_s(files: CertificateFiles) -> None:
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        handshake(from_pika(context(), NAME), files)


def test_no_verification_where_the_context_says_so(files: CertificateFiles) -> None:
    careless = context(check_hostname=False, verify_mode=stdlib_ssl.CERT_NONE)
    assert handshake(from_pika(careless, OTHER), files).name == OTHER.encode()
    assert handshake(from_pika(careless, "192.0.2.1"), files).name is None
    assert handshake(from_pika(careless, "2001:db8::1"), files).name is None


def test_the_certificate_without_the_name(files: CertificateFiles) -> None:
    assert handshake(from_pika(context(files, check_hostname=False), OTHER), files).name
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        handshake(from_pika(context(check_hostname=False), OTHER), files)


def test_versions(files: CertificateFiles) -> None:
    version = stdlib_ssl.TLSVersion
    old = context(files, maximum_version=version.TLSv1_2)
    assert handshake(from_pika(old, NAME), files).version == "TLSv1.2"
    only = context(files, minimum_version=version.TLSv1_2, maximum_version=version.TLSv1_2)
    assert handshake(from_pika(only, NAME), files).version == "TLSv1.2"
    any_up_to_13 = context(files, maximum_version=version.TLSv1_3)
    assert handshake(from_pika(any_up_to_13, NAME), files).version == "TLSv1.3"
    new = context(files, minimum_version=version.TLSv1_3)
    assert handshake(from_pika(new, NAME), files).version == "TLSv1.3"
    with pytest.raises(SSL.Error):
        handshake(from_pika(new, NAME), files, SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)


TLS = ssl.TLSVersion


@pytest.mark.parametrize(
    ("lowest", "highest", "as_up_to_25", "as_later"),
    [
        (None, None, (None, None), (None, None)),
        (TLS.TLSv1_2, None, (TLS.TLSv1_2, None), (TLS.TLSv1_2, None)),
        (None, TLS.TLSv1_2, (None, TLS.TLSv1_3), (None, TLS.TLSv1_2)),
        (None, TLS.TLSv1_3, (None, None), (None, TLS.TLSv1_3)),
        (None, TLS.TLSv1_1, (TLS.TLSv1_1, TLS.TLSv1_2), (None, TLS.TLSv1_1)),
        (TLS.TLSv1_0, TLS.TLSv1_1, (TLS.TLSv1_0, TLS.TLSv1_2), (TLS.TLSv1_0, TLS.TLSv1_1)),
    ],
)
def test_versions_as_twisted_wants_them(
    monkeypatch: pytest.MonkeyPatch, lowest: Any, highest: Any, as_up_to_25: Any, as_later: Any
) -> None:
    """Up to 25.5 Twisted leaves out the version that is to be the highest."""
    for left_out, expected in ((True, as_up_to_25), (False, as_later)):
        monkeypatch.setattr(tls, "_highest_is_left_out", lambda answer=left_out: answer)
        options = tls._version_range(lowest, highest)
        names = ("insecurelyLowerMinimumTo", "lowerMaximumSecurityTo")
        assert options == {
            name: value for name, value in zip(names, expected, strict=True) if value is not None
        }


def test_a_plain_host_is_verified(files: CertificateFiles) -> None:
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        handshake(tls.for_host(NAME), files)


# ssl_options of an amqps URL


def der(path: Path) -> bytes:
    certificate = crypto.load_certificate(crypto.FILETYPE_PEM, path.read_bytes())
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


@pytest.mark.parametrize(
    "given",
    [
        lambda files: {"ca_certs": str(files.authority)},
        lambda files: {"cafile": str(files.authority)},
        lambda files: {"ca_path": str(files.authority.parent)},
        lambda files: {"capath": str(files.authority.parent)},
        lambda files: {"ca_data": files.authority.read_text()},
        lambda files: {"cadata": der(files.authority)},
    ],
    ids=["ca_certs", "cafile", "ca_path", "capath", "ca_data", "cadata"],
)
def test_authorities(given: Any, files: CertificateFiles) -> None:
    options = given(files)
    assert handshake(tls.from_url(options, NAME), files).name == NAME.encode()
    with pytest.raises(VerificationError):
        handshake(tls.from_url(options, OTHER), files)
    renamed = {**options, "server_hostname": NAME}
    assert handshake(tls.from_url(renamed, OTHER), files).name == NAME.encode()


def test_a_file_without_a_certificate(files: CertificateFiles) -> None:
    with pytest.raises(ValueError, match="no certificate of an authority"):
        tls.from_url({"ca_certs": str(files.key)}, NAME)
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        handshake(tls.from_url({}, NAME), files)


def test_a_client_s_certificate_with_its_chain(files: CertificateFiles, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(files.certificate.read_bytes() + files.authority.read_bytes())
    trusted = {"ca_certs": str(files.authority)}
    own = {**trusted, "certfile": str(both), "keyfile": str(files.key)}
    asked = handshake(tls.from_url(own, NAME), files)
    assert asked.certificate.to_cryptography().subject.rfc4514_string() == f"CN={NAME}"
    assert handshake(tls.from_url(trusted, NAME), files).certificate is None


def test_a_key_behind_a_password(files: CertificateFiles, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    locked = tmp_path / "all.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        + files.certificate.read_bytes()
    )
    options = {"ca_certs": str(files.authority), "certfile": str(locked), "password": "secret"}
    assert handshake(tls.from_url(options, NAME), files).certificate is not None
    with pytest.raises(crypto.Error):
        tls.from_url({**options, "password": b"wrong"}, NAME)


def test_protocol_and_ciphers(files: CertificateFiles) -> None:
    options = {"ca_certs": str(files.authority), "protocol": stdlib_ssl.PROTOCOL_TLSv1_2}
    assert handshake(tls.from_url(options, NAME), files).version == "TLSv1.2"
    options["ciphers"] = "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert handshake(tls.from_url(options, NAME), files).cipher == options["ciphers"]


# Which of them connect() takes


def place(target: Any, **options: Any) -> Any:
    (found,) = places(target, None, options.get("tls"), MemoryReactorClock())
    return found


@pytest.mark.filterwarnings("ignore:Passing HostnameEndpoint a reactor")  # Twisted 22.10
def test_encrypted_places(files: CertificateFiles) -> None:
    assert not place("amqp://h/").encrypted
    assert place("amqps://h/").encrypted
    assert place("amqp://h/", tls=True).encrypted
    assert place("amqp://h/", tls=ssl.CertificateOptions()).encrypted
    written = quote(repr({"ca_certs": str(files.authority)}))
    assert place(f"amqps://h/?ssl_options={written}&heartbeat=7").encrypted
    assert place(f"amqps://h/?ssl_options={written}&heartbeat=7").parameters.heartbeat == 7
    secured = pika.ConnectionParameters("h", ssl_options=pika.SSLOptions(context(files)))
    assert place(secured).encrypted
    assert not place(pika.ConnectionParameters("h")).encrypted
    # False is what a setting says that is not set, and takes nothing away.
    assert place(secured, tls=False).encrypted
    assert place("amqps://h/", tls=False).encrypted
    assert place(f"amqps://h/?ssl_options={written}", tls=False).encrypted
    assert not place("amqp://h/", tls=False).encrypted


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("amqps://h/?ssl_options=[1]", "must be a dict"),
        ("amqp://h/?ssl_options={'a':1}", "need an amqps URL"),
    ],
)
def test_wrong_ssl_options(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        place(url)
