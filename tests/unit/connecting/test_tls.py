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
from twisted.internet import ssl
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from pika_twisted.connecting import tls
from pika_twisted.connecting.targets import places
from pika_twisted.transport.tls_layer import TLSFactory
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
    """Between the client that connect() would make and a server, bytes carried by hand."""
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
    inner = Factory.forProtocol(lambda: wrapped)
    factory: Any = TLSFactory(creator.context, creator.hostname, inner, Clock())
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
    with pytest.raises(stdlib_ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(from_pika(context(files), OTHER), files)
    # Another name than the one connected to, because the user says so.
    assert handshake(from_pika(context(files), OTHER, NAME), files).name == NAME.encode()


def test_a_context_without_authorities_trusts_none(files: CertificateFiles) -> None:
    with pytest.raises(stdlib_ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(from_pika(context(), NAME), files)


def test_no_verification_where_the_context_says_so(files: CertificateFiles) -> None:
    careless = context(check_hostname=False, verify_mode=stdlib_ssl.CERT_NONE)
    assert handshake(from_pika(careless, OTHER), files).name == OTHER.encode()
    assert handshake(from_pika(careless, "192.0.2.1"), files).name is None
    assert handshake(from_pika(careless, "2001:db8::1"), files).name is None


def test_the_certificate_without_the_name(files: CertificateFiles) -> None:
    assert handshake(from_pika(context(files, check_hostname=False), OTHER), files).name
    with pytest.raises(stdlib_ssl.SSLCertVerificationError, match="unable to get local issuer"):
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
    with pytest.raises(stdlib_ssl.SSLError, match="PROTOCOL_VERSION"):
        handshake(from_pika(new, NAME), files, SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)


def test_a_plain_host_is_verified(files: CertificateFiles) -> None:
    with pytest.raises(stdlib_ssl.SSLCertVerificationError, match="unable to get local issuer"):
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
    with pytest.raises(stdlib_ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tls.from_url(options, OTHER), files)
    renamed = {**options, "server_hostname": NAME}
    assert handshake(tls.from_url(renamed, OTHER), files).name == NAME.encode()


def test_a_file_without_a_certificate(files: CertificateFiles) -> None:
    with pytest.raises(ValueError, match=r"ca_certs '.*server\.key' holds no certificate"):
        tls.from_url({"ca_certs": str(files.key)}, NAME)
    with pytest.raises(stdlib_ssl.SSLCertVerificationError, match="unable to get local issuer"):
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
    for wrong in (b"wrong", ""):
        with pytest.raises(ValueError, match=r"the password does not open keyfile .*all\.pem"):
            tls.from_url({**options, "password": wrong}, NAME)
    del options["password"]
    with pytest.raises(ValueError, match=r"keyfile .*all\.pem' is encrypted, .* no password"):
        tls.from_url(options, NAME)


def test_files_that_are_swapped_or_not_a_pair(files: CertificateFiles, tmp_path: Path) -> None:
    def fails(certfile: Path, keyfile: Path, text: str) -> None:
        options = {"certfile": str(certfile), "keyfile": str(keyfile)}
        with pytest.raises(ValueError, match=text):
            tls.from_url(options, NAME)

    fails(files.key, files.certificate, r"certfile '.*server\.key' has no certificate")
    fails(files.certificate, files.authority, r"keyfile '.*authority\.pem' has no private key")
    other = write_certificates(tmp_path)
    fails(files.certificate, other.key, r"the key in '.*' is not that of the certificate in '.*'")
    broken = tmp_path / "broken.pem"
    broken.write_bytes(files.certificate.read_bytes().replace(b"\nM", b"\n*"))
    fails(broken, files.key, r"OpenSSL can't read certfile '.*broken\.pem'")
    with pytest.raises(ValueError, match="keyfile needs a certfile"):
        tls.from_url({"keyfile": str(files.key)}, NAME)
    with pytest.raises(FileNotFoundError, match="missing"):
        tls.from_url({"certfile": str(tmp_path / "missing")}, NAME)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"cacerts": "x"}, ValueError, "unknown name; known are ca_certs"),
        ({"ca_certs": 5}, TypeError, "ca_certs can't be a int"),
        ({"ciphers": "NONE:WHATSOEVER"}, ValueError, "ciphers"),
        ({"protocol": 99}, ValueError, "protocol"),
        ({"ca_data": "hello"}, ValueError, "ca_data holds no certificate"),
        ({"ca_data": b""}, None, ""),
    ],
)
def test_options_that_mean_nothing(options: Any, kind: Any, text: str) -> None:
    if kind is None:
        tls.from_url(options, NAME)
    else:
        with pytest.raises(kind, match=text):
            tls.from_url(options, NAME)


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
