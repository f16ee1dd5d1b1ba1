"""Where Python, Twisted and pika document the names that our reference uses.

A build without network links by these; one with network asks each project's own objects.inv first.
"""

from __future__ import annotations

import zlib
from pathlib import Path

ADDRESSES = {
    "python": "https://docs.python.org/3/",
    "twisted": "https://docs.twisted.org/en/stable/api/",
    "pika": "https://pika.readthedocs.io/en/stable/",
}

_BUILTIN_TYPES = {
    "bool": "library/functions.html",
    "bytes": "library/stdtypes.html",
    "dict": "library/stdtypes.html",
    "float": "library/functions.html",
    "int": "library/functions.html",
    "list": "library/stdtypes.html",
    "str": "library/stdtypes.html",
    "tuple": "library/stdtypes.html",
    "collections.abc.Callable": "library/collections.abc.html",
    "collections.abc.Iterable": "library/collections.abc.html",
    "collections.abc.Mapping": "library/collections.abc.html",
    "collections.abc.Sequence": "library/collections.abc.html",
    "ssl.SSLContext": "library/ssl.html",
    "typing.Any": "library/typing.html",
}
_BUILTIN_EXCEPTIONS = (
    "BaseException",
    "ConnectionError",
    "Exception",
    "LookupError",
    "OSError",
    "RuntimeError",
    "TypeError",
    "ValueError",
)
# pydoctor gives a class a page, and a function a place on the page of its module.
_TWISTED_CLASSES = (
    "twisted.application.internet.ClientService",
    "twisted.internet.defer.CancelledError",
    "twisted.internet.defer.Deferred",
    "twisted.internet.defer.TimeoutError",
    "twisted.internet.endpoints.HostnameEndpoint",
    "twisted.internet.error.ConnectionDone",
    "twisted.internet.error.ConnectionLost",
    "twisted.internet.protocol.Protocol",
    "twisted.internet.task.Clock",
    "twisted.python.failure.Failure",
)
_PIKA_CLASSES = {
    "pika.connection.ConnectionParameters": "modules/parameters.html",
    "pika.connection.Parameters": "modules/parameters.html",
    "pika.connection.URLParameters": "modules/parameters.html",
    "pika.credentials.ExternalCredentials": "modules/credentials.html",
    "pika.credentials.PlainCredentials": "modules/credentials.html",
    "pika.spec.BasicProperties": "modules/spec.html",
}
_PIKA_EXCEPTIONS = (
    "AMQPChannelError",
    "AMQPConnectionError",
    "AMQPError",
    "AMQPHeartbeatTimeout",
    "ChannelClosed",
    "ChannelClosedByBroker",
    "ChannelClosedByClient",
    "ChannelWrongStateError",
    "ConnectionClosed",
    "ConnectionClosedByBroker",
    "ConnectionClosedByClient",
    "ConnectionWrongStateError",
    "ConsumerCancelled",
    "NackError",
    "ProbableAccessDeniedError",
    "ProbableAuthenticationError",
    "UnroutableError",
)


def _entries(name: str) -> list[tuple[str, str, str]]:
    """Names, what they are, and where they stand."""
    if name == "python":
        return [
            *((each, "class", f"{page}#{each}") for each, page in _BUILTIN_TYPES.items()),
            *(
                (each, "exception", f"library/exceptions.html#{each}")
                for each in _BUILTIN_EXCEPTIONS
            ),
        ]
    if name == "twisted":
        return [(each, "class", f"{each}.html") for each in _TWISTED_CLASSES]
    return [
        *((each, "class", f"{page}#{each}") for each, page in _PIKA_CLASSES.items()),
        *(
            (full, "exception", f"modules/exceptions.html#{full}")
            for full in (f"pika.exceptions.{each}" for each in _PIKA_EXCEPTIONS)
        ),
    ]


def write(name: str, folder: Path) -> Path:
    """Write the names of one project as an inventory of Sphinx, version 2; its path."""
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = "".join(f"{each} py:{kind} 1 {place} -\n" for each, kind, place in _entries(name))
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.inv"
    path.write_bytes(head.encode() + zlib.compress(lines.encode()))
    return path
