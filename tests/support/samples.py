"""Arguments for the codec: any that pika can encode, and some that it can't."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from pika import exceptions, spec

from pika_twisted.codec.errors import UnsupportedField
from tests.support import shape
from tests.support.pika_versions import LOWEST

short_text = st.text(max_size=60).filter(lambda text: len(text.encode()) < 256)
tables = st.dictionaries(
    short_text,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(LOWEST, 2**63 - 1)
        | st.text(max_size=20)
        | st.binary(max_size=20)
        | st.decimals(
            allow_nan=False, allow_infinity=False, places=3, min_value=-9, max_value=9
        ).map(Decimal.normalize)  # as pika 1.3 and 1.4 send them
        | st.datetimes().map(lambda moment: moment.replace(year=max(moment.year, 1970))),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short_text, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


PROPERTY_VALUES: dict[str, list[Any]] = {
    "headers": [{}, {"a": 1, "b": {"c": [None, True]}}],
    "delivery_mode": [1, 255],
    "priority": [0, 9],
    "timestamp": [0, 2**64 - 1],
}
for _name in shape.PROPERTY_NAMES:
    PROPERTY_VALUES.setdefault(_name, [_name, "é" * 127])


def subset(mask: int, variant: int = 0) -> spec.BasicProperties:
    """Properties with exactly the fields whose bit is set."""
    names = [name for bit, name in enumerate(shape.PROPERTY_NAMES) if mask >> bit & 1]
    return spec.BasicProperties(**{name: PROPERTY_VALUES[name][variant] for name in names})


WRONG = (TypeError, ValueError)
UNSUPPORTED = UnsupportedField  # a TypeError, and pika's UnsupportedAMQPFieldException
TOO_LONG = exceptions.ShortStringTooLong
P = spec.BasicProperties
WRONG_ARGUMENTS: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "exchange None": ((None, "q", b""), TypeError, "exchange"),
    "exchange int": ((5, "q", b""), TypeError, "exchange"),
    "exchange surrogate": (("\ud800", "q", b""), ValueError, ""),
    "exchange too long": (("x" * 256, "q", b""), TOO_LONG, "exchange: a string of 256"),
    "exchange too long in octets": (("é" * 128, "q", b""), TOO_LONG, ""),
    "routing_key None": (("", None, b""), TypeError, "routing_key"),
    "routing_key bytearray": (("", bytearray(b"q"), b""), TypeError, "routing_key"),
    "routing_key too long": (("", b"x" * 256, b""), TOO_LONG, "routing_key: a string of 256"),
    "body None": (("", "q", None), TypeError, "body"),
    "body int": (("", "q", 5), TypeError, "body"),
    "body list": (("", "q", [1]), TypeError, "body"),
    "body surrogate": (("", "q", "\ud800"), ValueError, ""),
    "properties dict": (("", "q", b"", {}), TypeError, "properties"),
    "properties text": (("", "q", b"", 5), TypeError, "properties"),
    "content_type int": (("", "q", b"", P(content_type=5)), WRONG, "content_type"),
    "message_id too long": (("", "q", b"", P(message_id="x" * 256)), TOO_LONG, ""),
    "cluster_id list": (("", "q", b"", P(cluster_id=[])), WRONG, "cluster_id"),
    "delivery_mode text": (("", "q", b"", P(delivery_mode="2")), WRONG, ""),
    "delivery_mode 256": (("", "q", b"", P(delivery_mode=256)), WRONG, ""),
    "priority negative": (("", "q", b"", P(priority=-1)), WRONG, ""),
    "priority float": (("", "q", b"", P(priority=1.5)), WRONG, ""),
    "timestamp negative": (("", "q", b"", P(timestamp=-1)), WRONG, ""),
    "timestamp moment": (("", "q", b"", P(timestamp=datetime.datetime.now())), WRONG, ""),
    "timestamp beyond": (("", "q", b"", P(timestamp=2**64)), WRONG, ""),
    "headers list": (("", "q", b"", P(headers=[1])), WRONG, ""),
    "headers text": (("", "q", b"", P(headers="x")), WRONG, ""),
    "header key int": (("", "q", b"", P(headers={5: 1})), WRONG, ""),
    "header key too long": (("", "q", b"", P(headers={"k" * 256: 1})), TOO_LONG, ""),
    "header key surrogate": (("", "q", b"", P(headers={"\ud800": 1})), ValueError, ""),
    "header complex": (("", "q", b"", P(headers={"k": 1.5j})), UNSUPPORTED, ""),
    "header object": (("", "q", b"", P(headers={"k": object()})), UNSUPPORTED, ""),
    "header tuple": (("", "q", b"", P(headers={"k": (1,)})), UNSUPPORTED, ""),
    "header set nested": (("", "q", b"", P(headers={"k": [{"n": {1}}]})), UNSUPPORTED, ""),
    "header int beyond": (("", "q", b"", P(headers={"k": 2**64})), WRONG, ""),
    "header decimal beyond": (("", "q", b"", P(headers={"k": Decimal(2**31)})), WRONG, ""),
    "header decimal nan": (("", "q", b"", P(headers={"k": Decimal("NaN")})), WRONG, ""),
    "header moment before 1970": (
        ("", "q", b"", P(headers={"k": datetime.datetime(1969, 1, 1)})),
        WRONG,
        "",
    ),
    "header text surrogate": (("", "q", b"", P(headers={"k": "\ud800"})), ValueError, ""),
}
