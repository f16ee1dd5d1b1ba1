# cython: language_level=3, binding=False, auto_pickle=False, freethreading_compatible=True
# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled AMQP 0-9-1 codec: bytes in, frames and messages out, and calls in, bytes out.

The rule of this module: it logs nothing, knows nothing of Twisted, and calls no user code while it
decodes or encodes; ``ReadLoop``, which drains the decoder, and ``OutputBuffer.write()`` do between
one frame and the next. Any bytes at all give frames, messages or one DecodeError, whatever the
split; good frames before a bad one come out first; after an error the decoder stays failed. Every
octet that came from a peer is read through ``take``, the one checked cursor.

A frame (AMQP 0-9-1, section 2.3.5)::

    0      1         3             7                  size+7 size+8
    +------+---------+-------------+------------------+------+
    | type | channel |    size     |  payload ...     | 0xCE |
    +------+---------+-------------+------------------+------+
      1: method   class(2) method(2) arguments
      2: header   class(2) weight(2) body size(8) property flags(2) properties
      3: body     octets
      8: heartbeat

``pika_twisted/_frame_py.py`` is the same in plain Python, and says in which order a frame is
checked that is wrong in more than one way.
"""

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from cpython.number cimport PyNumber_AsSsize_t, PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.stdint cimport (
    INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from libc.string cimport memcmp, memcpy

import sys
from calendar import timegm
from datetime import datetime
from decimal import Decimal

from pika import amqp_object, frame, spec
from pika.exceptions import AMQPError, ShortStringTooLong

from pika_twisted.codec.errors import (
    DecodeError, FieldError, OversizedContent, UndecodableProperties, UnsupportedField,
)
from pika_twisted.codec.to_wire import encode_properties
from pika_twisted.codec.values import LongLong, Timestamp, decimal_of, decimal_parts, timestamp_of

__all__ = [
    "IMPLEMENTATION",
    "Backlog",
    "BasicProperties",
    "ChannelEncoder",
    "DecodeError",
    "Deliver",
    "FrameDecoder",
    "GetOk",
    "OutputBuffer",
    "OversizedContent",
    "ReadLoop",
    "Return",
    "UndecodableProperties",
    "read_as_slots",
]

IMPLEMENTATION = "compiled"


# One extension module, as its parts call each other for every message; one file for each subject.
include "pika_twisted/codec/c_api.pxi"      # what Cython's own declarations lack
include "pika_twisted/codec/protocol.pxi"   # numbers of AMQP 0-9-1
include "pika_twisted/codec/cursor.pxi"     # the one way to read a peer's octets
include "pika_twisted/codec/from_wire.pxi"  # in: strings, values, tables
include "pika_twisted/codec/methods.pxi"    # in: methods and their arguments
include "pika_twisted/codec/light.pxi"      # Deliver, GetOk, Return, BasicProperties
include "pika_twisted/codec/backlog.pxi"    # messages that wait in a consumer's queue
include "pika_twisted/codec/content.pxi"    # in: contents, by channel
include "pika_twisted/codec/decoder.pxi"    # in: FrameDecoder
include "pika_twisted/codec/output.pxi"     # out: OutputBuffer, ChannelEncoder, acks and publishes
include "pika_twisted/codec/to_wire.pxi"    # out: strings, values, tables, as pika writes them
include "pika_twisted/codec/read_loop.pxi"  # in and out: the loop that drains the decoder
