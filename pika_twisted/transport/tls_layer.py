"""TLS by the standard library's `ssl` module, as a Twisted transport.

The user's own `ssl.SSLContext` does it, over `ssl.MemoryBIO`: every flag, revocation list, client
certificate and callback of the context counts, where Twisted's TLS needs a context of pyOpenSSL's.
"""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet import defer, interfaces, main
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from .sockets import abort

#: Bytes of plain text that are gathered before the protocol gets them: four records of the largest
#: size. With one call for each record a flood of small messages cost 8 % more.
GATHERED = 64 * 1024
_LARGEST_RECORD = 16 * 1024
#: Bytes that are encrypted at once: a body of 16 MiB is not held encrypted as a whole, and again
#: as what is read out of the BIO.
_PIECE = 128 * 1024
#: Seconds that a peer which has ended TLS, or broken it, may take to read what it was sent.
LINGER = 0.5


@implementer(interfaces.ISSLTransport, interfaces.INegotiated)
class TLSLayer(ProtocolWrapper):
    """Encrypts what a protocol writes, decrypts what its transport reads. For clients.

    It ends as TLS asks: `loseConnection()` sends what was written, close_notify, and closes. Like
    plain TCP it does not wait for the peer's close_notify. A connection that ends without one from
    the peer fails with ConnectionLost: what came may be cut.
    """

    factory: Any
    transport: Any
    wrappedProtocol: Any  # noqa: N815

    def __init__(self, factory: TLSFactory, protocol: Any) -> None:
        super().__init__(factory, protocol)  # type: ignore[arg-type]
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = factory.context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=factory.hostname
        )
        self._plain = memoryview(bytearray(GATHERED))
        self._shaken = False  # the handshake is done, the peer's certificate is accepted
        self._unsent: list[bytes] = []  # plain text that TLS can't take yet
        self._producer: tuple[Any, bool] | None = None
        self._told_to_pause = False
        self._ended = False  # close_notify was sent; nothing more is
        self._deaf = False  # aborted, broken or ended by the peer: nothing more is read
        self._why: Failure | None = None
        self._cutting: Any = None

    def makeConnection(self, transport: Any) -> None:
        """Connect the protocol, and begin the handshake."""
        super().makeConnection(transport)  # type: ignore[no-untyped-call]
        if not self._deaf:
            self._shake_hands()

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Decrypt; the protocol gets what several records hold in one call."""
        if self._deaf:
            return
        self._incoming.write(data)
        if self._shaken or self._shake_hands():
            self._read()
        if self._outgoing.pending:  # answers of TLS itself
            self._flush()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; True when it is done."""
        try:
            self._tls.do_handshake()
            self._check_name()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except (ssl.SSLError, ValueError) as why:
            self._break(why)
            return False
        self._shaken = True
        self._flush()
        self._send_unsent()
        return not self._deaf

    def _check_name(self) -> None:
        """Refuse a certificate that only its common name makes valid for the host."""
        if not self.factory.context.check_hostname:
            return
        host = self.factory.hostname
        kind = "IP Address" if isIPAddress(host) or isIPv6Address(host) else "DNS"
        certificate: Any = self._tls.getpeercert() or {}
        if not any(name[0] == kind for name in certificate.get("subjectAltName", ())):
            raise ssl.SSLCertVerificationError(
                f"the certificate has no subjectAltName of the kind {kind}"
            )

    def _read(self) -> None:
        read, plain, incoming = self._tls.read, self._plain, self._incoming
        filled = 0
        try:
            while not self._deaf:
                count: Any = read(_LARGEST_RECORD, plain[filled:])
                if not count:
                    self._deliver(filled)
                    self._end_with_peer()
                    return
                filled += count
                if not incoming.pending and not self._tls.pending():
                    break  # asking once more would only raise
                if GATHERED - filled < _LARGEST_RECORD:
                    self._deliver(filled)
                    filled = 0
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as why:
            self._deliver(filled)
            self._break(why)
            return
        self._deliver(filled)
        if self._unsent:
            self._send_unsent()

    def _deliver(self, filled: int) -> None:
        if filled and not self._deaf:
            self.wrappedProtocol.dataReceived(bytes(self._plain[:filled]))

    # Writing

    def write(self, data: bytes) -> None:
        """Encrypt and send; kept until the handshake is done."""
        if self._ended or self._deaf or (self.disconnecting and self._producer is None):
            return
        if not self._shaken or self._unsent:
            self._keep(data)
        else:
            self._encrypt(data)

    def writeSequence(self, data: Any) -> None:
        """The same for several pieces."""
        self.write(b"".join(data))

    def _keep(self, data: bytes) -> None:
        self._unsent.append(bytes(data))
        if self._producer is not None and self._producer[1] and not self._told_to_pause:
            self._told_to_pause = True
            self._producer[0].pauseProducing()

    def _encrypt(self, data: bytes) -> None:
        write, left = self._tls.write, memoryview(data)
        try:
            while left:
                left = left[write(left[:_PIECE]) :]
                self._flush()
        except ssl.SSLWantReadError:  # the peer negotiates anew
            self._flush()
            self._unsent.insert(0, bytes(left))
        except ssl.SSLError as why:
            self._break(why)

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, []
        while unsent and not self._unsent:
            self._encrypt(unsent.pop(0))
        self._unsent += unsent
        if self._unsent or self._deaf:
            return
        if self._told_to_pause and self._producer is not None:
            self._told_to_pause = False
            self._producer[0].resumeProducing()
        elif self.disconnecting and self._producer is None:
            self._end()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.transport.write(self._outgoing.read())

    # Producers

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See `IConsumer`; told to pause also while the handshake keeps what it writes."""
        if self._deaf or self._ended:
            producer.stopProducing()
            return
        self.transport.registerProducer(producer, streaming)  # raises where there is one
        self._producer = producer, streaming
        self._told_to_pause = False

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        if self._producer is None:
            return
        self._producer = None
        self.transport.unregisterProducer()
        if self.disconnecting and self._shaken and not self._unsent:
            self._end()

    # The end

    def loseConnection(self) -> None:
        """Close when everything is sent, and a producer has unregistered itself."""
        if self.disconnecting:
            return
        self.disconnecting = True
        if not self._unsent and self._producer is None:
            self._end()

    def loseWriteConnection(self) -> None:
        """Send close_notify, and close TCP's half."""
        self._say_goodbye()
        self.transport.loseWriteConnection()

    def abortConnection(self) -> None:
        """Close at once; nothing more is delivered."""
        self.disconnecting = self._deaf = True
        abort(self.transport)

    def _say_goodbye(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._shaken:
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # for one, the peer's close_notify is not here
                pass
            self._flush()

    def _end(self) -> None:
        self._say_goodbye()
        self.transport.loseConnection()

    def _end_with_peer(self) -> None:
        """The peer has sent close_notify."""
        self.disconnecting = self._deaf = True
        self._cut_later()
        self._end()

    def _break(self, why: Exception) -> None:
        """TLS can't go on; the alert that says why is sent."""
        if self._ended:
            return  # the peer's complaints about our end
        self._why = Failure(why)
        self.disconnecting = self._deaf = self._ended = True
        self._cut_later()
        self._flush()
        self.transport.loseConnection()

    def _cut_later(self) -> None:
        self._cutting = self.factory.clock.callLater(LINGER, abort, self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone; a reason of TLS is the better one."""
        if self._cutting is not None and self._cutting.active():
            self._cutting.cancel()
        expected, self._deaf, self._ended = self.disconnecting, True, True
        if self._why is not None:
            reason = self._why
        elif not (expected or self._shaken):
            reason = Failure(ssl.SSLEOFError("the peer closed the connection"))
        elif reason.check(ConnectionDone) and not expected:
            reason = Failure(main.CONNECTION_LOST)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    # What is known of the peer

    def getHandle(self) -> ssl.SSLObject:
        """The standard library's object of this connection: `version()`, `cipher()` and more."""
        return self._tls

    def getPeerCertificate(self) -> Any:
        """The peer's certificate as pyOpenSSL's X509, which Twisted's own TLS gives; or None."""
        der = self._tls.getpeercert(binary_form=True)
        if der is None:
            return None
        from OpenSSL import crypto

        return crypto.load_certificate(crypto.FILETYPE_ASN1, der)

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """What ALPN chose (see `INegotiated`)."""
        chosen = self._tls.selected_alpn_protocol()
        return None if chosen is None else chosen.encode("ascii")


class TLSFactory(WrappingFactory):
    """Makes a `TLSLayer` for each protocol of the factory it wraps.

    :param context: does the TLS
    :param hostname: sent to the peer, and checked where `context.check_hostname` is set
    :param clock: the reactor
    """

    noisy = False
    protocol = TLSLayer

    def __init__(self, context: ssl.SSLContext, hostname: str, wrapped: Any, clock: Any) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.context = context
        self.hostname = hostname
        self.clock = clock


class UnlessEncrypted(ProtocolWrapper):
    """Puts a `TLSLayer` on a transport that does no TLS by itself."""

    factory: Any
    wrappedProtocol: Any  # noqa: N815

    def makeConnection(self, transport: Any) -> None:
        """Connect the protocol, through TLS in either case."""
        if not hasattr(transport, "getPeerCertificate"):
            self.wrappedProtocol = TLSLayer(self.factory, self.wrappedProtocol)
            self.factory.registerProtocol(self.wrappedProtocol)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]


@implementer(interfaces.IStreamClientEndpoint)
class TLSEndpoint:
    """An endpoint that connects through another one, with TLS.

    :param endpoint: connects; where it may do TLS itself, `layer` is `UnlessEncrypted`
    :param context, hostname, clock: see `TLSFactory`
    """

    def __init__(
        self,
        endpoint: Any,
        context: ssl.SSLContext,
        hostname: str,
        clock: Any,
        layer: type[ProtocolWrapper] = TLSLayer,
    ) -> None:
        self._endpoint = endpoint
        self._make = (context, hostname)
        self._clock = clock
        self._layer = layer

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        """Connect; the Deferred fires with the protocol of `factory`, before the handshake."""
        made: list[Any] = []

        def build(address: Any) -> Any:
            made.append(factory.buildProtocol(address))
            return made[-1]

        inner = Factory()
        inner.noisy = False
        inner.buildProtocol = build  # type: ignore[method-assign, assignment]
        wrapping = TLSFactory(*self._make, inner, self._clock)
        wrapping.protocol = self._layer  # type: ignore[assignment]
        connecting: defer.Deferred[Any] = self._endpoint.connect(wrapping)
        return connecting.addCallback(lambda _: made[-1])
