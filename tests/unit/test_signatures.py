"""The interface, signature for signature.

The tables are written down from the documentation of pika's adapter that this package follows. Its
parameters, their order and their defaults are fixed; two things are not from there but from pika
1.4.4: `flow(active=True)` and the public names listed as LATER. Keyword-only parameters of our own
may be added.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pika.exchange_type import ExchangeType
from twisted.internet import defer, interfaces, protocol

import pika_twisted

REQUIRED = inspect.Parameter.empty

PROTOCOL: dict[str, dict[str, Any]] = {
    "__init__": {"parameters": None, "custom_reactor": None},
    "channel": {"channel_number": None},
    "connectionLost": {"reason": protocol.connectionDone},
    "connectionMade": {},
    "dataReceived": {"data": REQUIRED},
    "logPrefix": {},
}

PROTOCOL_LATER: dict[str, dict[str, Any]] = {
    "close": {"reply_code": 200, "reply_text": "Normal shutdown"},
    "connectionReady": {},
    "makeConnection": {"transport": REQUIRED},
}

CHANNEL: dict[str, dict[str, Any]] = {
    "__init__": {"channel": REQUIRED},
    "add_on_return_callback": {"callback": REQUIRED},
    "basic_ack": {"delivery_tag": 0, "multiple": False},
    "basic_cancel": {"consumer_tag": ""},
    "basic_consume": {
        "queue": REQUIRED,
        "auto_ack": False,
        "exclusive": False,
        "consumer_tag": None,
        "arguments": None,
    },
    "basic_get": {"queue": REQUIRED, "auto_ack": False},
    "basic_nack": {"delivery_tag": None, "multiple": False, "requeue": True},
    "basic_publish": {
        "exchange": REQUIRED,
        "routing_key": REQUIRED,
        "body": REQUIRED,
        "properties": None,
        "mandatory": False,
    },
    "basic_qos": {"prefetch_size": 0, "prefetch_count": 0, "global_qos": False},
    "basic_recover": {"requeue": False},
    "basic_reject": {"delivery_tag": REQUIRED, "requeue": True},
    "callback_deferred": {"deferred": REQUIRED, "replies": REQUIRED},
    "close": {"reply_code": 0, "reply_text": "Normal shutdown"},
    "confirm_delivery": {},
    "exchange_bind": {
        "destination": REQUIRED,
        "source": REQUIRED,
        "routing_key": "",
        "arguments": None,
    },
    "exchange_declare": {
        "exchange": REQUIRED,
        "exchange_type": ExchangeType.direct,
        "passive": False,
        "durable": False,
        "auto_delete": False,
        "internal": False,
        "arguments": None,
    },
    "exchange_delete": {"exchange": None, "if_unused": False},
    "exchange_unbind": {
        "destination": None,
        "source": None,
        "routing_key": "",
        "arguments": None,
    },
    "flow": {"active": True},  # pika 1.4.4's default
    "queue_bind": {
        "queue": REQUIRED,
        "exchange": REQUIRED,
        "routing_key": None,
        "arguments": None,
    },
    "queue_declare": {
        "queue": REQUIRED,
        "passive": False,
        "durable": False,
        "exclusive": False,
        "auto_delete": False,
        "arguments": None,
    },
    "queue_delete": {"queue": REQUIRED, "if_unused": False, "if_empty": False},
    "queue_purge": {"queue": REQUIRED},
    "queue_unbind": {
        "queue": REQUIRED,
        "exchange": None,
        "routing_key": None,
        "arguments": None,
    },
    "tx_commit": {},
    "tx_rollback": {},
    "tx_select": {},
}

CHANNEL_LATER: dict[str, dict[str, Any]] = {"open": {}}

QUEUE: dict[str, dict[str, Any]] = {
    "__init__": {"size": None, "backlog": None},
    "close": {"reason": REQUIRED},
    "get": {},
    "put": {"obj": REQUIRED},
}

PROPERTIES = {
    "TwistedProtocolConnection": ["is_closed", "is_open"],
    "TwistedChannel": [
        "channel_number",
        "connection",
        "consumer_tags",
        "flow_active",
        "is_closed",
        "is_closing",
        "is_open",
    ],
}

METHODS = [
    (class_name, method, parameters)
    for class_name, table in (
        ("TwistedProtocolConnection", {**PROTOCOL, **PROTOCOL_LATER}),
        ("TwistedChannel", {**CHANNEL, **CHANNEL_LATER}),
        ("ClosableDeferredQueue", QUEUE),
    )
    for method, parameters in table.items()
]


def signature_of(class_name: str, method: str) -> list[inspect.Parameter]:
    function = getattr(getattr(pika_twisted, class_name), method)
    return list(inspect.signature(function).parameters.values())[1:]  # without self


@pytest.mark.parametrize(
    ("class_name", "method", "parameters"),
    METHODS,
    ids=[f"{class_name}.{method}" for class_name, method, _ in METHODS],
)
def test_parameters_order_and_defaults(
    class_name: str, method: str, parameters: dict[str, Any]
) -> None:
    positional = [
        parameter
        for parameter in signature_of(class_name, method)
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert [parameter.name for parameter in positional] == list(parameters)
    for parameter in positional:
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD, parameter
        expected = parameters[parameter.name]
        if expected is REQUIRED or expected is None or isinstance(expected, bool):
            assert parameter.default is expected, parameter
        else:
            assert parameter.default == expected, parameter


@pytest.mark.parametrize(
    ("class_name", "method", "parameters"),
    METHODS,
    ids=[f"{class_name}.{method}" for class_name, method, _ in METHODS],
)
def test_what_we_add_is_keyword_only_and_optional(
    class_name: str, method: str, parameters: dict[str, Any]
) -> None:
    for parameter in signature_of(class_name, method):
        if parameter.name not in parameters:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter
            assert parameter.default is not REQUIRED, parameter


@pytest.mark.parametrize("class_name", list(PROPERTIES))
def test_properties(class_name: str) -> None:
    cls = getattr(pika_twisted, class_name)
    for name in PROPERTIES[class_name]:
        assert isinstance(inspect.getattr_static(cls, name), property), name


def test_instance_attributes() -> None:
    protocol_ = pika_twisted.TwistedProtocolConnection()
    assert isinstance(protocol_.ready, defer.Deferred)
    assert protocol_.closed is None
    queue = pika_twisted.ClosableDeferredQueue()
    assert queue.closed is None
    assert (queue.pending, queue.waiting, queue.size, queue.backlog) == ([], [], None, None)
    protocol_.ready.addErrback(lambda failure: None)


def test_classes_are_twisteds() -> None:
    assert issubclass(pika_twisted.TwistedProtocolConnection, protocol.Protocol)
    assert interfaces.IProtocol.implementedBy(pika_twisted.TwistedProtocolConnection)
    assert issubclass(pika_twisted.ClosableDeferredQueue, defer.DeferredQueue)


def test_a_received_message_has_the_four_fields() -> None:
    message = pika_twisted.ReceivedMessage(channel=1, method=2, properties=3, body=4)
    assert message == (1, 2, 3, 4)
    assert (message.channel, message.method, message.properties, message.body) == (1, 2, 3, 4)
    channel, method, properties, body = message
    assert (channel, method, properties, body) == (1, 2, 3, 4)
    assert pika_twisted.ReceivedMessage._fields == ("channel", "method", "properties", "body")
    assert message._replace(body=b"x").body == b"x"
    assert message._asdict() == {"channel": 1, "method": 2, "properties": 3, "body": 4}


@pytest.mark.parametrize(
    "class_name", ["TwistedProtocolConnection", "TwistedChannel", "ClosableDeferredQueue"]
)
def test_every_public_name_of_the_installed_pika_is_here(class_name: str) -> None:
    """Also in releases of pika that come after these tables were written."""
    theirs_module = pytest.importorskip("pika.adapters.twisted_connection")
    theirs = getattr(theirs_module, class_name)
    ours = getattr(pika_twisted, class_name)
    missing = [name for name in dir(theirs) if not name.startswith("_") and not hasattr(ours, name)]
    assert not missing


@pytest.mark.parametrize(
    "class_name", ["TwistedProtocolConnection", "TwistedChannel", "ClosableDeferredQueue"]
)
def test_calls_written_for_the_installed_pika_fit_ours(class_name: str) -> None:
    """Whatever can be passed to a method of pika's adapter can be passed to ours."""
    theirs_module = pytest.importorskip("pika.adapters.twisted_connection")
    theirs = getattr(theirs_module, class_name)
    ours = getattr(pika_twisted, class_name)
    for name, function in inspect.getmembers(theirs, inspect.isfunction):
        if name.startswith("_") and name != "__init__":
            continue
        accepted = inspect.signature(getattr(ours, name)).parameters
        for position, parameter in enumerate(inspect.signature(function).parameters.values()):
            assert parameter.name in accepted, f"{name}({parameter.name})"
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
                assert list(accepted)[position] == parameter.name, f"{name}({parameter.name})"
