# cython: language_level=3, binding=False, auto_pickle=False, freethreading_compatible=True
# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled AMQP 0-9-1 codec: bytes in, frames and messages out, and calls in, bytes out.

The rule of this module: it does no I/O, calls no user code while it decodes, logs nothing and
knows nothing of Twisted. Any bytes at all give frames, messages or one DecodeError, whatever the
split; good frames before a bad one come out first; after an error the decoder stays failed.
Every octet that came from a peer is read through ``take``, the one checked cursor.

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
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport PyObject
from cpython.ref cimport Py_CLEAR, Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_SET_ITEM
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

import sys
from calendar import timegm
from datetime import datetime, timezone
from decimal import Decimal

from pika import amqp_object, compat, frame, spec
from pika.exceptions import ShortStringTooLong

from pika_twisted._errors import DecodeError, UndecodableProperties, UnsupportedField

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
    "Return",
    "UndecodableProperties",
]

IMPLEMENTATION = "compiled"


# ------------------------------------------------------------------------------------------------
# What Cython's own declarations lack
# ------------------------------------------------------------------------------------------------

cdef extern from *:
    """
    /* A new object as its type's own allocator makes it: zeroed, and nothing else called. */
    #define bare_object(type, items) \
        (((PyTypeObject *)(type))->tp_alloc((PyTypeObject *)(type), (items)))

    /* The same for a class that the cyclic collector has nothing to do with, in half the time. Behind
       the object there is room for so many octets of its own. */
    static inline PyObject *bare_light_object(PyObject *type, size_t octets) {
        size_t size = (size_t)((PyTypeObject *)type)->tp_basicsize;
        PyObject *o = (PyObject *)PyObject_Malloc(size + octets);
        if (o == NULL)
            return PyErr_NoMemory();
        memset(o, 0, size);
        return PyObject_Init(o, (PyTypeObject *)type);
    }
    #define own_octets(o) ((unsigned char *)(o) + Py_TYPE(o)->tp_basicsize)

    /* Where an object keeps its instance dict; NULL there until somebody needs one. */
    #define dict_slot(o) ((PyObject **)((char *)(o) + Py_TYPE(o)->tp_dictoffset))

    /* CPython 3.14 caches a tuple's hash; tuple's own constructor marks it as not known yet. */
    #if PY_VERSION_HEX >= 0x030E0000
      #define forget_hash(o) (((PyTupleObject *)(o))->ob_hash = -1)
    #else
      #define forget_hash(o) ((void)(o))
    #endif

    /* A string as pika gives it: bytes where the octets are no UTF-8. */
    static PyObject *text_or_bytes(const unsigned char *at, Py_ssize_t size) {
        PyObject *text = PyUnicode_DecodeUTF8((const char *)at, size, NULL);
        if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            PyErr_Clear();
            return PyBytes_FromStringAndSize((const char *)at, size);
        }
        return text;
    }

    #ifdef Py_GIL_DISABLED
      #define HAS_GIL 0
    #else
      #define HAS_GIL 1
    #endif

    #define is_plain_tuple(o) (Py_TYPE(o) == &PyTuple_Type)
    #define is_short_ascii(o) (PyUnicode_CheckExact(o) && PyUnicode_IS_COMPACT_ASCII(o))
    """
    object bare_object(object type, Py_ssize_t items)
    object bare_light_object(object type, size_t octets)
    unsigned char* own_octets(object o)
    PyObject** dict_slot(object o)
    void forget_hash(object o)
    object text_or_bytes(const unsigned char* at, Py_ssize_t size)
    const bint HAS_GIL
    bint is_plain_tuple(object o)
    bint is_short_ascii(object o)

cdef extern from "Python.h":
    PyObject* PyBytes_FromStringAndSize_raw "PyBytes_FromStringAndSize" (
        const char*, Py_ssize_t) except NULL
    int _PyBytes_Resize(PyObject**, Py_ssize_t) except -1
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    void* PyUnicode_DATA(object)
    PyObject* PyDict_GetItemWithError(object, object) except? NULL
    object PyObject_GenericGetAttr(object, object)
    object PyObject_GenericGetDict(object, void*)
    int PyObject_GenericSetDict(object, object, void*) except -1
    unsigned long long PyLong_AsUnsignedLongLong(object) except? 0xFFFFFFFFFFFFFFFF
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    bint PyTuple_Check(object)
    Py_ssize_t PyTuple_GET_SIZE(object)
    PyObject* PyTuple_GET_ITEM_raw "PyTuple_GET_ITEM" (object, Py_ssize_t)
    bint PyBytes_CheckExact_raw "PyBytes_CheckExact" (PyObject*)
    Py_ssize_t PyBytes_GET_SIZE_raw "PyBytes_GET_SIZE" (PyObject*)
    bint PyObject_GC_IsTracked(object)
    void PyObject_GC_Track(PyObject*)
    void PyObject_GC_UnTrack(PyObject*)
    ctypedef object (*get_attribute "getattrofunc")(object, object)
    ctypedef struct PyTypeObject:
        PyObject* tp_dict
        get_attribute tp_getattro
    void PyType_Modified(PyTypeObject*)


# ------------------------------------------------------------------------------------------------
# Constants of the protocol
# ------------------------------------------------------------------------------------------------

cdef enum:
    METHOD_FRAME = 1
    HEADER_FRAME = 2
    BODY_FRAME = 3
    HEARTBEAT_FRAME = 8
    FRAME_END = 0xCE
    HEAD_SIZE = 7             # type, channel, size
    FRAME_OVERHEAD = 8        # the head and the end octet
    PROTOCOL_HEADER_SIZE = 8
    CONTENT_HEADER_SIZE = 12  # class, weight, body size
    PROPERTY_COUNT = 14

    CONNECTION_CLASS = 10
    BASIC_CLASS = 60
    CHANNEL_CLOSE = 0x00140028
    CHANNEL_CLOSE_OK = 0x00140029
    BASIC_PUBLISH = 0x003C0028
    BASIC_RETURN = 0x003C0032
    BASIC_DELIVER = 0x003C003C
    BASIC_GET_OK = 0x003C0047
    BASIC_ACK = 0x003C0050
    BASIC_REJECT = 0x003C005A
    BASIC_NACK = 0x003C0078

    # Reply codes (section 1.1 of the specification).
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541

    # A body is allocated at once up to this size, beyond it as its octets really come: the size
    # a peer announces costs it 8 octets.
    PREALLOCATE_MAX = 16 << 20
    # Longer properties are not remembered to be compared with the next message's.
    LARGEST_SEEN = 4096
    # A partial frame's buffer is kept for the next one unless it grew beyond this.
    CARRY_KEPT = 256 << 10
    # An output buffer is handed over as it is from this size on; below, copying is cheaper than
    # allocating a new one.
    HAND_OVER = 4096
    FIRST_ROOM = 1024
    # Tables in tables a caller may publish; the stack of a thread is finite.
    MAX_ENCODED_NESTING = 500
    # The same for what a peer sends, as the most that max_nesting can be set to.
    MAX_DECODED_NESTING = 1000


class FieldError(Exception):
    """An argument, property or table entry that can't be what it claims to be."""


# ------------------------------------------------------------------------------------------------
# The checked cursor
# ------------------------------------------------------------------------------------------------

ctypedef const unsigned char* octets

cdef struct Cursor:
    octets at
    octets end  # of the innermost thing that holds what is read: table, array, payload


cdef octets past_the_end() except NULL:
    raise FieldError("a length passes the end of what holds it")


cdef inline octets take(Cursor* cursor, size_t count) except NULL:
    """Step over ``count`` octets and return where they begin. Nothing else reads a payload."""
    cdef octets at = cursor.at
    if count > <size_t>(cursor.end - at):
        return past_the_end()
    cursor.at = at + count
    return at


cdef inline uint16_t load_u16(octets at) noexcept nogil:
    return <uint16_t>((<uint16_t>at[0] << 8) | at[1])


cdef inline uint32_t load_u32(octets at) noexcept nogil:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]


cdef inline uint64_t load_u64(octets at) noexcept nogil:
    return (<uint64_t>load_u32(at) << 32) | load_u32(at + 4)


# ------------------------------------------------------------------------------------------------
# Strings, values and tables from the wire
# ------------------------------------------------------------------------------------------------

# Marks integers that are published as 64 bit, as pika's class does; its main branch has none.
cdef object long_long = getattr(compat, "long", int)
cdef object from_timestamp = datetime.fromtimestamp
cdef object utc = timezone.utc


cdef inline object short_string(Cursor* cursor):
    cdef Py_ssize_t size = take(cursor, 1)[0]
    return text_or_bytes(take(cursor, size), size)


# Header keys, content types and the like repeat from message to message: 50 ns saved by each that
# is still the one that its slot has. Not for free-threaded Python, being shared by all.
cdef enum:
    KNOWN_STRINGS = 256
    LONGEST_KNOWN = 31

cdef PyObject* known_strings[KNOWN_STRINGS]


cdef object repeated_string(Cursor* cursor):
    """The next short string, where it is one of a few."""
    cdef Py_ssize_t size = take(cursor, 1)[0]
    cdef octets at = take(cursor, size)
    cdef PyObject** slot
    if not HAS_GIL or not 0 < size <= LONGEST_KNOWN:
        return text_or_bytes(at, size)
    slot = &known_strings[(((at[0] * 31 + at[size // 2]) * 31 + at[size - 1]) * 31 + size)
                          % KNOWN_STRINGS]
    if slot[0] is not NULL and same_text(<object>slot[0], at, size):
        return <object>slot[0]
    text = text_or_bytes(at, size)
    if is_short_ascii(text):
        Py_XDECREF(slot[0])
        slot[0] = new_reference(text)
    return text


cdef inline bint same_text(object known, octets at, Py_ssize_t size) noexcept:
    """``known`` is such a string and has these octets."""
    return (is_short_ascii(known) and PyUnicode_GET_LENGTH(known) == size
            and memcmp(PyUnicode_DATA(known), at, size) == 0)


cdef inline PyObject* new_reference(object value) noexcept:
    Py_INCREF(value)
    return <PyObject*>value


cdef inline object long_string(Cursor* cursor):
    cdef Py_ssize_t size = load_u32(take(cursor, 4))
    return PyBytes_FromStringAndSize(<const char*>take(cursor, size), size)


cdef inline object long_text(Cursor* cursor):
    cdef Py_ssize_t size = load_u32(take(cursor, 4))
    return text_or_bytes(take(cursor, size), size)


cdef int enter(Cursor* outer, Cursor* inner, int depth, int max_nesting) except -1:
    """Set ``inner`` to the entries of the table or array that begins here; step ``outer`` over."""
    cdef Py_ssize_t size = load_u32(take(outer, 4))
    inner.at = take(outer, size)
    inner.end = outer.at
    if depth > max_nesting:
        raise FieldError(f"nested deeper than {max_nesting} levels")
    return 0


cdef dict read_table(Cursor* cursor, int depth, int max_nesting):
    cdef dict table = {}
    cdef Cursor entries
    enter(cursor, &entries, depth, max_nesting)
    while entries.at < entries.end:
        key = repeated_string(&entries)
        table[key] = read_value(&entries, depth, max_nesting)
    return table


# The headers of a program's messages are often the same. From the third time on a copy of those of
# the second is made: 0.03 instead of 0.16 us. Not for free-threaded Python, being shared by all.
cdef enum:
    LONGEST_TABLE = 256

cdef unsigned char[LONGEST_TABLE] last_table_octets
cdef Py_ssize_t last_table_size = 0
cdef PyObject* last_table = NULL  # a dict that nobody else has, or NULL: seen once, or not flat


cdef dict repeated_table(Cursor* cursor, int max_nesting):
    """The next table, where it may be the same as the last one."""
    global last_table, last_table_size
    cdef Cursor ahead = cursor[0]
    cdef octets at = cursor.at
    cdef Py_ssize_t size
    cdef bint again
    take(&ahead, load_u32(take(&ahead, 4)))
    size = ahead.at - at
    if not HAS_GIL or size > LONGEST_TABLE:
        return read_table(cursor, 0, max_nesting)
    again = size == last_table_size and memcmp(last_table_octets, at, size) == 0
    if again and last_table is not NULL:
        cursor.at = ahead.at
        known = <dict>last_table  # held: copying may collect garbage, whose finalizers may decode
        return known.copy()
    table = read_table(cursor, 0, max_nesting)
    Py_CLEAR(last_table)
    memcpy(last_table_octets, at, size)
    last_table_size = size
    if again and is_flat(table):
        last_table = new_reference(table.copy())
    return table


cdef bint is_flat(dict table) except -1:
    """Nothing in it can be changed."""
    for value in table.values():
        if isinstance(value, (dict, list)):
            return False
    return True


cdef list read_array(Cursor* cursor, int depth, int max_nesting):
    cdef list array = []
    cdef Cursor entries
    enter(cursor, &entries, depth, max_nesting)
    while entries.at < entries.end:
        array.append(read_value(&entries, depth, max_nesting))
    return array


cdef object read_value(Cursor* cursor, int depth, int max_nesting):
    """One field value: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3 says what tags mean."""
    cdef unsigned char tag = take(cursor, 1)[0]
    cdef Py_ssize_t size
    if tag == c"S":
        return long_text(cursor)
    elif tag == c"I":
        return <int>load_u32(take(cursor, 4))
    elif tag == c"l" or tag == c"L":
        return long_long(<int64_t>load_u64(take(cursor, 8)))
    elif tag == c"t":
        return take(cursor, 1)[0] != 0
    elif tag == c"F":
        return read_table(cursor, depth + 1, max_nesting)
    elif tag == c"A":
        return read_array(cursor, depth + 1, max_nesting)
    elif tag == c"T":
        return read_timestamp(load_u64(take(cursor, 8)))
    elif tag == c"b":
        return <signed char>take(cursor, 1)[0]
    elif tag == c"B":
        return take(cursor, 1)[0]
    elif tag == c"s" or tag == c"U":
        return <short>load_u16(take(cursor, 2))
    elif tag == c"u":
        return load_u16(take(cursor, 2))
    elif tag == c"i":
        return load_u32(take(cursor, 4))
    elif tag == c"f":
        return float_from_bits(load_u32(take(cursor, 4)))
    elif tag == c"d":
        return double_from_bits(load_u64(take(cursor, 8)))
    elif tag == c"D":
        size = take(cursor, 1)[0]
        return read_decimal(size, <int>load_u32(take(cursor, 4)))
    elif tag == c"x":
        return long_string(cursor)
    elif tag == c"V":
        return None
    raise FieldError(f"unknown field type {bytes([tag])!r}")


cdef double float_from_bits(uint32_t bits) noexcept:
    cdef float value
    memcpy(&value, &bits, sizeof(value))
    return value


cdef double double_from_bits(uint64_t bits) noexcept:
    cdef double value
    memcpy(&value, &bits, sizeof(value))
    return value


cdef object read_timestamp(uint64_t seconds):
    """A datetime, or the number itself beyond year 9999: milliseconds are a common mistake."""
    try:
        return from_timestamp(seconds, utc)
    except (ValueError, OverflowError, OSError):
        return seconds


cdef object read_decimal(int scale, long long unscaled):
    # From a tuple: exact, whatever the precision of the caller's decimal context.
    return Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -scale))


# ------------------------------------------------------------------------------------------------
# Methods and their arguments
# ------------------------------------------------------------------------------------------------

# One row per method: index, name, arguments in the order of the wire, each with its type.
# B octet, H short, I long, Q long long, s short string, S long string (bytes, as pika has it),
# L the same as text, F table, t bit; bits in a row share octets.
cdef str METHOD_LAYOUTS = """
000a000a Connection.Start     version_major:B version_minor:B server_properties:F mechanisms:S locales:S
000a000b Connection.StartOk   client_properties:F mechanism:s response:S locale:s
000a0014 Connection.Secure    challenge:S
000a0015 Connection.SecureOk  response:S
000a001e Connection.Tune      channel_max:H frame_max:I heartbeat:H
000a001f Connection.TuneOk    channel_max:H frame_max:I heartbeat:H
000a0028 Connection.Open      virtual_host:s capabilities:s insist:t
000a0029 Connection.OpenOk    known_hosts:s
000a0032 Connection.Close     reply_code:H reply_text:s class_id:H method_id:H
000a0033 Connection.CloseOk
000a003c Connection.Blocked   reason:s
000a003d Connection.Unblocked
000a0046 Connection.UpdateSecret  new_secret:L reason:s
000a0047 Connection.UpdateSecretOk
0014000a Channel.Open         out_of_band:s
0014000b Channel.OpenOk       channel_id:S
00140014 Channel.Flow         active:t
00140015 Channel.FlowOk       active:t
00140028 Channel.Close        reply_code:H reply_text:s class_id:H method_id:H
00140029 Channel.CloseOk
001e000a Access.Request       realm:s exclusive:t passive:t active:t write:t read:t
001e000b Access.RequestOk     ticket:H
0028000a Exchange.Declare     ticket:H exchange:s type:s passive:t durable:t auto_delete:t internal:t nowait:t arguments:F
0028000b Exchange.DeclareOk
00280014 Exchange.Delete      ticket:H exchange:s if_unused:t nowait:t
00280015 Exchange.DeleteOk
0028001e Exchange.Bind        ticket:H destination:s source:s routing_key:s nowait:t arguments:F
0028001f Exchange.BindOk
00280028 Exchange.Unbind      ticket:H destination:s source:s routing_key:s nowait:t arguments:F
00280033 Exchange.UnbindOk
0032000a Queue.Declare        ticket:H queue:s passive:t durable:t exclusive:t auto_delete:t nowait:t arguments:F
0032000b Queue.DeclareOk      queue:s message_count:I consumer_count:I
00320014 Queue.Bind           ticket:H queue:s exchange:s routing_key:s nowait:t arguments:F
00320015 Queue.BindOk
0032001e Queue.Purge          ticket:H queue:s nowait:t
0032001f Queue.PurgeOk        message_count:I
00320028 Queue.Delete         ticket:H queue:s if_unused:t if_empty:t nowait:t
00320029 Queue.DeleteOk       message_count:I
00320032 Queue.Unbind         ticket:H queue:s exchange:s routing_key:s arguments:F
00320033 Queue.UnbindOk
003c000a Basic.Qos            prefetch_size:I prefetch_count:H global_qos:t
003c000b Basic.QosOk
003c0014 Basic.Consume        ticket:H queue:s consumer_tag:s no_local:t no_ack:t exclusive:t nowait:t arguments:F
003c0015 Basic.ConsumeOk      consumer_tag:s
003c001e Basic.Cancel         consumer_tag:s nowait:t
003c001f Basic.CancelOk       consumer_tag:s
003c0028 Basic.Publish        ticket:H exchange:s routing_key:s mandatory:t immediate:t
003c0032 Basic.Return         reply_code:H reply_text:s exchange:s routing_key:s
003c003c Basic.Deliver        consumer_tag:s delivery_tag:Q redelivered:t exchange:s routing_key:s
003c0046 Basic.Get            ticket:H queue:s no_ack:t
003c0047 Basic.GetOk          delivery_tag:Q redelivered:t exchange:s routing_key:s message_count:I
003c0048 Basic.GetEmpty       cluster_id:s
003c0050 Basic.Ack            delivery_tag:Q multiple:t
003c005a Basic.Reject         delivery_tag:Q requeue:t
003c0064 Basic.RecoverAsync   requeue:t
003c006e Basic.Recover        requeue:t
003c006f Basic.RecoverOk
003c0078 Basic.Nack           delivery_tag:Q multiple:t requeue:t
0055000a Confirm.Select       nowait:t
0055000b Confirm.SelectOk
005a000a Tx.Select
005a000b Tx.SelectOk
005a0014 Tx.Commit
005a0015 Tx.CommitOk
005a001e Tx.Rollback
005a001f Tx.RollbackOk
"""


@cython.final
cdef class Layout:
    """How the arguments of one method lie in its frame."""

    cdef object method_class
    cdef tuple names
    cdef bytes types

    def __init__(self, method_class, arguments):
        pairs = [argument.split(":") for argument in arguments]
        self.method_class = method_class
        self.names = tuple(sys.intern(name) for name, _ in pairs)
        self.types = "".join(type for _, type in pairs).encode()


cdef dict method_layouts():
    rows = (row.split() for row in METHOD_LAYOUTS.strip().splitlines())
    return {
        int(index, 16): Layout(spec.methods[int(index, 16)], arguments)
        for index, _, *arguments in rows
    }


cdef dict LAYOUTS = method_layouts()


cdef str method_name(uint32_t index):
    return (<Layout>LAYOUTS[index]).method_class.NAME


cdef object read_method(Layout layout, Cursor* cursor, int max_nesting):
    """An object of pika's class, its attributes set as pika's decoder sets them."""
    method = bare_object(layout.method_class, 0)
    cdef octets types = <octets>PyBytes_AS_STRING(layout.types)
    cdef Py_ssize_t i
    cdef int bit = 8       # the next bit of bit_octet; 8: none left, or no bits were read before
    cdef int bit_octet = 0
    for i in range(PyBytes_GET_SIZE(layout.types)):
        if types[i] == c"t":
            if bit == 8:
                bit_octet = take(cursor, 1)[0]
                bit = 0
            value = ((bit_octet >> bit) & 1) != 0
            bit += 1
        else:
            bit = 8
            value = read_argument(types[i], cursor, max_nesting)
        setattr(method, layout.names[i], value)
    return method


cdef object read_argument(unsigned char type, Cursor* cursor, int max_nesting):
    if type == c"s":
        return short_string(cursor)
    elif type == c"r":
        return repeated_string(cursor)
    elif type == c"Q":
        return load_u64(take(cursor, 8))
    elif type == c"H":
        return load_u16(take(cursor, 2))
    elif type == c"I":
        return load_u32(take(cursor, 4))
    elif type == c"B":
        return take(cursor, 1)[0]
    elif type == c"S":
        return long_string(cursor)
    elif type == c"L":
        return long_text(cursor)
    return repeated_table(cursor, max_nesting)  # F


# ------------------------------------------------------------------------------------------------
# Light objects: equal to pika's, but a fraction of their cost
# ------------------------------------------------------------------------------------------------
#
# A delivered message's method and properties keep what came from the wire in C. The first
# assignment, deletion or look at ``__dict__`` moves it into a real instance dict, and from then on
# the object is an ordinary one. 36 ns and 64 bytes a Deliver, where pika's is 219 ns and 144.
#
# No methods of C's here: a class with any has a table of them, and bare_object() sets none.
#
# They are no_gc: what the decoder puts into them can't form a cycle, and 100,000 queued ones cost
# the cyclic collector nothing.

cdef enum FieldKind:
    TEXT            # text[slot]
    DELIVERY_TAG
    REDELIVERED
    NUMBER          # message_count or reply_code


@cython.no_gc
cdef class _Light:
    """What Deliver, GetOk, Return and BasicProperties have in common: pika's faces."""

    cdef dict __dict__              # Cython demands it because pika's classes have one
    cdef unsigned char in_dict      # the instance dict is the truth, the C fields are no more
    cdef unsigned char bit          # of methods: redelivered
    cdef uint16_t nesting           # of properties: max_nesting
    cdef uint32_t number            # of methods: FieldKind.NUMBER; of properties: own octets

    def __dealloc__(self):
        # Cython would empty the dict before it lets go of it, under the hands of whoever else
        # holds it: vars(message.method), say.
        cdef PyObject** slot = dict_slot(self)
        Py_XDECREF(slot[0])
        slot[0] = NULL

    def __eq__(self, other):
        if not isinstance(other, amqp_object.AMQPObject):
            return NotImplemented
        return own_dict(self) == other.__dict__ and unreadable(self) == unreadable(other)

    def __hash__(self):
        raise TypeError(f"unhashable type: {type(self).__name__!r}")

    def __repr__(self):
        cls = type(self)
        items = []
        for name, value in own_dict(self).items():
            default = getattr(cls, name, None)
            if isinstance(default, _Field):
                default = None
            if default != value:
                items.append(f"{name}={value}")
        text = f"<{self.NAME}({sorted(items)})>" if items else f"<{self.NAME}>"
        if unreadable(self) is not None:
            text = f"{text.removesuffix('>')} undecodable: {problem_of(<_RawProperties>self)}>"
        return text

    def __reduce__(self):
        return restore_method, (type(self), dict(own_dict(self)))


@cython.no_gc
cdef class _ContentMethod(_Light):
    """The arguments of Deliver, GetOk or Return, as they came: 64 bytes with the dict's slot."""

    cdef PyObject* text[3]
    cdef uint64_t tag

    def __dealloc__(self):
        cdef int i
        for i in range(3):
            Py_XDECREF(self.text[i])


@cython.no_gc
cdef class _RawProperties(_Light):
    """The octets of a message's properties, decoded when one of them is touched: 0.8 us saved."""

    # bytes that several messages share, or NULL: it has ``number`` octets of its own, right behind
    # it, which saves 32 bytes and an allocation; or none, where a caller made it.
    cdef PyObject* raw_octets
    # NULL, or the 14 properties once they are decoded (NULL: it and those behind it can't be),
    # and behind them why some can't (str or NULL).
    cdef PyObject** values

    def __dealloc__(self):
        Py_XDECREF(self.raw_octets)
        free_values(self.values)

    @property
    def raw(self):
        """The octets the properties came in; None where they came from no peer."""
        if self.raw_octets is not NULL:
            return <object>self.raw_octets
        if self.number == 0:
            return None
        return PyBytes_FromStringAndSize(<const char*>own_octets(self), self.number)

    def __reduce__(self):
        # Undecoded as long as nobody has looked: no decoding error can come of it.
        raw = self.raw
        looked = raw is None or self.values is not NULL or dict_slot(self)[0] is not NULL
        fields = dict(own_dict(self)) if looked else None
        return restore_properties, (type(self), fields, problem_of(self), raw, self.nesting)


cdef object problem_of(_RawProperties light):
    """Why some properties can't be decoded, or None."""
    if light.values is NULL or light.values[PROPERTY_COUNT] is NULL:
        return None
    return <object>light.values[PROPERTY_COUNT]


cdef void free_values(PyObject** values) noexcept:
    cdef int i
    if values is not NULL:
        for i in range(PROPERTY_COUNT + 1):
            Py_XDECREF(values[i])
        PyMem_Free(values)


cdef class _Field:
    """An attribute of a light object: read from C, or from the instance dict once there is one."""

    cdef readonly str __name__
    cdef int slot

    def __cinit__(self, name, int slot, *args):
        self.__name__ = sys.intern(name)
        self.slot = slot

    def __set__(self, instance, value):
        own_dict(<_Light?>instance)[self.__name__] = value

    def __delete__(self, instance):
        try:
            del own_dict(<_Light?>instance)[self.__name__]
        except KeyError:
            raise AttributeError(self.__name__) from None


@cython.final
cdef class _MethodField(_Field):
    """An argument of a content method."""

    cdef FieldKind kind

    def __cinit__(self, name, slot, FieldKind kind=TEXT):
        self.kind = kind

    def __get__(self, instance, owner):
        if instance is None:
            return self
        cdef _ContentMethod method = <_ContentMethod?>instance
        return from_dict(method, self) if method.in_dict else method_field(method, self)


@cython.final
cdef class _PropertyField(_Field):
    """One of the 14 properties; ``slot`` is its place on the wire."""

    def __get__(self, instance, owner):
        if instance is None:
            return self
        cdef _RawProperties properties = <_RawProperties?>instance
        if properties.in_dict:
            return from_dict(properties, self)
        cdef PyObject* value = decoded(properties)[self.slot]
        if value is NULL:
            raise_missing(properties, self.__name__)
        return <object>value


cdef object from_dict(_Light light, _Field field):
    cdef PyObject* value = PyDict_GetItemWithError(own_dict(light), field.__name__)
    if value is NULL:
        raise_missing(light, field.__name__)
    return <object>value


cdef object method_field(_ContentMethod method, _MethodField field):
    if field.kind == TEXT:
        return None if method.text[field.slot] is NULL else <object>method.text[field.slot]
    elif field.kind == DELIVERY_TAG:
        return method.tag
    elif field.kind == REDELIVERED:
        return method.bit != 0
    return method.number


cdef int raise_missing(_Light light, str name) except -1:
    if name in PROPERTY_NAMES and isinstance(light, _RawProperties):
        problem = problem_of(<_RawProperties>light)
        if problem is not None:
            raise UndecodableProperties(f"{name} can't be decoded: {problem}", light.raw)
    raise AttributeError(f"{type(light).__name__!r} object has no attribute {name!r}")


cdef dict own_dict(_Light light):
    """The instance dict, with everything in it."""
    if not light.in_dict:
        fill_dict(light)
    return <dict><object>dict_slot(light)[0]


cdef int fill_dict(_Light light) except -1:
    cdef dict fields = PyObject_GenericGetDict(light, NULL)
    cdef PyObject** values
    cdef _MethodField field
    if isinstance(light, _RawProperties):
        values = decoded(<_RawProperties>light)
        for i in range(PROPERTY_COUNT):
            if values[i] is not NULL:
                fields[PROPERTY_NAMES[i]] = <object>values[i]
    else:
        for field in content_method_fields(light):
            fields[field.__name__] = method_field(<_ContentMethod>light, field)
    light.in_dict = True
    return 0


def get_dict(_Light light not None):
    return own_dict(light)


def set_dict(_Light light not None, fields):
    PyObject_GenericSetDict(light, fields, NULL)
    light.in_dict = True


def restore_method(cls, dict fields not None):
    """Undo ``_ContentMethod.__reduce__``."""
    cdef _Light light = cls.__new__(cls)
    set_dict(light, fields)
    return light


def restore_properties(cls, dict fields, str problem, bytes raw, uint16_t max_nesting):
    """Undo ``_RawProperties.__reduce__``."""
    cdef _RawProperties light = cls.__new__(cls)
    light.nesting = max_nesting
    if raw is not None:
        light.raw_octets = new_reference(raw)
    if fields is not None:
        set_dict(light, fields)
        light.values = <PyObject**>PyMem_Calloc(PROPERTY_COUNT + 1, sizeof(PyObject*))
        if light.values is NULL:
            raise MemoryError
        if problem is not None:
            light.values[PROPERTY_COUNT] = new_reference(problem)
    return light


@cython.no_gc
cdef class Deliver(_ContentMethod, spec.Basic.Deliver):
    """Basic.Deliver as the decoder makes it."""

    consumer_tag = _MethodField("consumer_tag", 2)
    delivery_tag = _MethodField("delivery_tag", 0, DELIVERY_TAG)
    redelivered = _MethodField("redelivered", 0, REDELIVERED)
    exchange = _MethodField("exchange", 0)
    routing_key = _MethodField("routing_key", 1)


@cython.no_gc
cdef class GetOk(_ContentMethod, spec.Basic.GetOk):
    """Basic.GetOk as the decoder makes it."""

    delivery_tag = _MethodField("delivery_tag", 0, DELIVERY_TAG)
    redelivered = _MethodField("redelivered", 0, REDELIVERED)
    exchange = _MethodField("exchange", 0)
    routing_key = _MethodField("routing_key", 1)
    message_count = _MethodField("message_count", 0, NUMBER)


@cython.no_gc
cdef class Return(_ContentMethod, spec.Basic.Return):
    """Basic.Return as the decoder makes it."""

    reply_code = _MethodField("reply_code", 0, NUMBER)
    reply_text = _MethodField("reply_text", 2)
    exchange = _MethodField("exchange", 0)
    routing_key = _MethodField("routing_key", 1)


cdef tuple PROPERTY_NAMES = tuple(vars(spec.BasicProperties()))  # in the order of the wire
cdef bytes PROPERTY_TYPES = b"rrFBBsrrsQrrrr"  # as in METHOD_LAYOUTS; r: s, one of a few


@cython.no_gc
cdef class BasicProperties(_RawProperties, spec.BasicProperties):
    """A message's properties. Those that can't be decoded raise UndecodableProperties on touch."""

    content_type = _PropertyField("content_type", 0)
    content_encoding = _PropertyField("content_encoding", 1)
    headers = _PropertyField("headers", 2)
    delivery_mode = _PropertyField("delivery_mode", 3)
    priority = _PropertyField("priority", 4)
    correlation_id = _PropertyField("correlation_id", 5)
    reply_to = _PropertyField("reply_to", 6)
    expiration = _PropertyField("expiration", 7)
    message_id = _PropertyField("message_id", 8)
    timestamp = _PropertyField("timestamp", 9)
    type = _PropertyField("type", 10)
    user_id = _PropertyField("user_id", 11)
    app_id = _PropertyField("app_id", 12)
    cluster_id = _PropertyField("cluster_id", 13)


cdef inline PyObject** decoded(_RawProperties light) except NULL:
    """The properties' values, decoded now unless they are already."""
    return light.values if light.values is not NULL else decode_properties(light)


cdef PyObject** decode_properties(_RawProperties light) except NULL:
    cdef PyObject** values = <PyObject**>PyMem_Calloc(PROPERTY_COUNT + 1, sizeof(PyObject*))
    if values is NULL:
        raise MemoryError
    try:
        read_properties(light, values)
    except FieldError as error:
        values[PROPERTY_COUNT] = new_reference(str(error))
    except BaseException:
        free_values(values)
        raise
    light.values = values
    return values


cdef int read_properties(_RawProperties light, PyObject** values) except -1:
    """Fill in ``values`` in the order of the wire, up to one that can't be decoded."""
    cdef octets types = <octets>PyBytes_AS_STRING(PROPERTY_TYPES)
    cdef int flags = 0
    cdef int i
    cdef Cursor cursor
    if light.raw_octets is not NULL:
        cursor.at = <octets>PyBytes_AS_STRING(<bytes>light.raw_octets)
        cursor.end = cursor.at + PyBytes_GET_SIZE(<bytes>light.raw_octets)
    else:
        cursor.at = own_octets(light)
        cursor.end = cursor.at + light.number
    if light.raw_octets is not NULL or light.number != 0:  # it came from a peer
        flags = load_u16(take(&cursor, 2))
    if flags & 1:
        # None of the 14 would be announced in a second word. pika gathers such words without
        # end: 60,000 of them cost it 0.4 s.
        raise FieldError("the property flags are continued")
    for i in range(PROPERTY_COUNT):
        if flags & (0x8000 >> i):
            values[i] = new_reference(read_argument(types[i], &cursor, light.nesting))
        else:
            values[i] = new_reference(None)
    return 0


cdef object unreadable(object light):
    """The raw octets while some property can't be read, else None."""
    if not isinstance(light, _RawProperties) or problem_of(<_RawProperties>light) is None:
        return None
    fields = own_dict(<_Light>light)
    for name in PROPERTY_NAMES:
        if name not in fields:
            return light.raw
    return None


cdef tuple fields_of(light_class):
    return tuple([field for field in vars(light_class).values() if isinstance(field, _Field)])

cdef tuple DELIVER_FIELDS = fields_of(Deliver)
cdef tuple GET_OK_FIELDS = fields_of(GetOk)
cdef tuple RETURN_FIELDS = fields_of(Return)


cdef tuple content_method_fields(_Light light):
    if isinstance(light, Deliver):
        return DELIVER_FIELDS
    return GET_OK_FIELDS if isinstance(light, GetOk) else RETURN_FIELDS


# Cython gives a class with a ``__dict__`` slot a getter that shows only what is in the slot, and
# takes no other in its place: hence put there by hand.
for light_class in (Deliver, GetOk, Return, BasicProperties):
    (<dict>(<PyTypeObject*>light_class).tp_dict)["__dict__"] = property(get_dict, set_dict)
    PyType_Modified(<PyTypeObject*>light_class)


# Before Python asks a descriptor it looks the name up in every base: 0.05 us for each of the 19
# attributes that a consumer may read. Names in a program are interned: their addresses will do.

cdef enum:
    NAMES = 64  # a power of two, and several times the number of names


cdef struct Name:
    PyObject* text
    PyObject* field


cdef Name property_names[NAMES]
cdef Name argument_names[NAMES]


cdef inline Name* place_of(Name* names, PyObject* text) noexcept:
    """Where ``text`` is in ``names``, or would be."""
    cdef size_t at = <size_t>text >> 4
    while names[at % NAMES].text is not NULL and names[at % NAMES].text is not text:
        at += 1
    return &names[at % NAMES]


cdef object get_property(object this, object name):
    """An attribute of BasicProperties; with one look where it is a decoded property."""
    cdef _RawProperties light = <_RawProperties>this
    cdef PyObject* field
    cdef PyObject* value
    if light.values is not NULL and not light.in_dict and type(this) is BasicProperties:
        field = place_of(property_names, <PyObject*>name).field
        if field is not NULL:
            value = light.values[(<_Field>field).slot]
            if value is not NULL:
                return <object>value
    return PyObject_GenericGetAttr(this, name)


cdef object get_argument(object this, object name):
    """An attribute of Deliver; with one look where it is an argument."""
    cdef _ContentMethod light = <_ContentMethod>this
    cdef PyObject* field
    if not light.in_dict and type(this) is Deliver:
        field = place_of(argument_names, <PyObject*>name).field
        if field is not NULL:
            return method_field(light, <_MethodField>field)
    return PyObject_GenericGetAttr(this, name)


cdef int shorten(light_class, Name* names, get_attribute get) except -1:
    """Let ``get`` find the fields of ``light_class`` through ``names``."""
    cdef Name* place
    for field in fields_of(light_class):
        place = place_of(names, <PyObject*>field.__name__)
        place.text = new_reference(field.__name__)
        place.field = new_reference(field)
    (<PyTypeObject*>light_class).tp_getattro = get
    return 0


shorten(Deliver, argument_names, get_argument)
shorten(BasicProperties, property_names, get_property)


cdef inline int set_text(_ContentMethod method, int slot, object text) except -1:
    method.text[slot] = new_reference(text)
    return 0


# ------------------------------------------------------------------------------------------------
# Messages that wait
# ------------------------------------------------------------------------------------------------

cdef object new_message(object message_class, object channel, object method, object properties,
                        object body):
    """A message, made as tuple's own constructor does it: 46 ns instead of 242.

    The cyclic collector does not see it until it is handed out (``visible``): with 100,000 queued
    ones a full collection takes 15 ms instead of 184.
    """
    message = bare_object(message_class, 4)
    forget_hash(message)
    Py_INCREF(channel)
    PyTuple_SET_ITEM(message, 0, channel)
    Py_INCREF(method)
    PyTuple_SET_ITEM(message, 1, method)
    Py_INCREF(properties)
    PyTuple_SET_ITEM(message, 2, properties)
    Py_INCREF(body)
    PyTuple_SET_ITEM(message, 3, body)
    PyObject_GC_UnTrack(<PyObject*>message)
    return message


cdef inline bint looks_like_message(object item) noexcept:
    return PyTuple_Check(item) and PyTuple_GET_SIZE(item) == 4


cdef inline object visible(object item):
    """``item``, seen by the cyclic collector again: what a user holds may be part of a cycle."""
    if (looks_like_message(item) and not is_plain_tuple(item)
            and not PyObject_GC_IsTracked(item)):
        PyObject_GC_Track(<PyObject*>item)
    return item


cdef inline Py_ssize_t body_size_of(object item) noexcept:
    cdef PyObject* body
    if not looks_like_message(item):
        return 0
    body = PyTuple_GET_ITEM_raw(item, 3)
    return PyBytes_GET_SIZE_raw(body) if PyBytes_CheckExact_raw(body) else 0


cdef enum:
    SMALLEST_RING = 8


@cython.final
cdef class Backlog:
    """First in, first out, in constant time whatever its length; looks like a list otherwise."""

    # A ring in a list, which the cyclic collector can see into; its size is a power of two.
    cdef list ring
    cdef Py_ssize_t head, count, mask
    cdef readonly Py_ssize_t body_bytes

    def __cinit__(self, *args, **kwargs):
        self.reset()

    def __init__(self, items=()):
        for item in items:
            self.push(item)

    cdef int reset(self) except -1:
        self.ring = [None] * SMALLEST_RING
        self.mask = SMALLEST_RING - 1
        self.head = self.count = self.body_bytes = 0
        return 0

    cdef int push(self, object item) except -1:
        if self.count > self.mask:
            self.grow()
        self.ring[(self.head + self.count) & self.mask] = item
        self.count += 1
        self.body_bytes += body_size_of(item)
        return 0

    cdef int grow(self) except -1:
        cdef list ring = self.ring[self.head:] + self.ring[:self.head]
        self.ring = ring + [None] * len(ring)
        self.mask = 2 * len(ring) - 1
        self.head = 0
        return 0

    cdef object pop(self):
        item = self.ring[self.head]
        self.ring[self.head] = None
        self.head = (self.head + 1) & self.mask
        self.count -= 1
        self.body_bytes -= body_size_of(item)
        if self.count == 0 and self.mask > 1023:
            self.reset()  # what a long backlog took is given back when it has gone
        return visible(item)

    cdef inline object at(self, Py_ssize_t index):
        return visible(self.ring[(self.head + index) & self.mask])

    def append(self, item):
        """Add ``item`` at the end."""
        self.push(item)

    def popleft(self):
        """Take the oldest item; IndexError when there is none."""
        if self.count == 0:
            raise IndexError("pop from an empty backlog")
        return self.pop()

    def popmany(self, Py_ssize_t count):
        """Take up to ``count`` items, the oldest first."""
        return [self.pop() for _ in range(min(count, self.count))]

    def clear(self):
        """Drop everything."""
        self.reset()

    def copy(self):
        """A list of all items; they stay in the backlog."""
        cdef Py_ssize_t i
        return [self.at(i) for i in range(self.count)]

    def track(self):
        """Show all items to the cyclic collector; for a queue that ends with messages in it."""
        cdef Py_ssize_t i
        for i in range(self.count):
            self.at(i)

    def __len__(self):
        return self.count

    def __bool__(self):
        return self.count != 0

    def __iter__(self):
        return iter(self.copy())

    def __reversed__(self):
        return reversed(self.copy())

    def __contains__(self, item):
        return item in self.copy()

    def __getitem__(self, index):
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [self.at(i) for i in range(*index.indices(self.count))]
        i = PyNumber_AsSsize_t(index, IndexError)
        if i < 0:
            i += self.count
        if not 0 <= i < self.count:
            raise IndexError("backlog index out of range")
        return self.at(i)

    def __eq__(self, other):
        if not isinstance(other, (list, Backlog)):
            return NotImplemented
        return len(other) == self.count and self.copy() == list(other)

    def __hash__(self):
        raise TypeError(f"unhashable type: {type(self).__name__!r}")

    def __repr__(self):
        return repr(self.copy())


# ------------------------------------------------------------------------------------------------
# Content: a method, its header, its body, and what is known of the channel they come on
# ------------------------------------------------------------------------------------------------

class OversizedContent:
    """Comes out instead of the header of a content that is longer than ``max_message_size``."""

    def __init__(self, channel_number, method, body_size, limit):
        self.channel_number = channel_number
        self.method = method
        self.body_size = body_size
        self.limit = limit

    def __repr__(self):
        return (
            f"<OversizedContent channel_number={self.channel_number} method={self.method!r} "
            f"body_size={self.body_size} limit={self.limit}>"
        )


@cython.final
cdef class Subscription:
    """Where the messages of one consumer go."""

    cdef Backlog backlog
    cdef object channel
    cdef object token
    cdef object tag        # as Deliver.consumer_tag shows it
    cdef bytes tag_octets
    cdef uint64_t reported  # FrameDecoder.taken when its token was last put on the list

    def __init__(self, Backlog backlog not None, channel, token, bytes tag_octets):
        self.backlog = backlog
        self.channel = channel
        self.token = token
        self.tag_octets = tag_octets
        self.tag = text_or_bytes(<octets>PyBytes_AS_STRING(tag_octets), len(tag_octets))


cdef enum Awaited:
    CONTENT_METHOD  # or any other: nothing is begun
    CONTENT_HEADER
    CONTENT_BODY


@cython.final
cdef class ChannelState:
    """The subscriptions of one channel, and the content that is on its way in."""

    cdef list confirms            # where Basic.Ack and Nack go; None: they are returned
    cdef object confirms_token
    cdef uint64_t confirms_reported
    cdef dict subscriptions       # consumer tag as bytes -> Subscription
    cdef Subscription last_found
    cdef bint forgotten

    cdef Awaited awaited
    cdef Subscription subscription  # of the content; None: its frames are returned one by one
    cdef bint swallowed             # oversized: its body is read over
    cdef object method
    cdef object properties
    cdef uint64_t body_size, missing
    cdef PyObject* body             # bytes in the making; nobody else holds them
    cdef Py_ssize_t filled, allocated

    # The previous message's, shared with the next one's where equal: 34 ns, and no memory. Properties
    # are, from the second time that they come.
    cdef object exchange, routing_key
    cdef unsigned char* seen
    cdef Py_ssize_t seen_size, seen_room
    cdef bytes raw_properties

    def __cinit__(self):
        self.subscriptions = {}

    def __dealloc__(self):
        Py_XDECREF(self.body)
        PyMem_Free(self.seen)

    cdef bint sees_again(self, octets at, Py_ssize_t size) except -1:
        """Whether the previous message had these properties; remembers them for the next one."""
        cdef void* room
        if size == self.seen_size:
            if memcmp(self.seen, at, size) == 0:
                return True
        elif size > self.seen_room:
            if size > LARGEST_SEEN:
                return False
            room = PyMem_Realloc(self.seen, size)
            if room is NULL:
                raise MemoryError
            self.seen = <unsigned char*>room
            self.seen_room = size
        memcpy(self.seen, at, size)
        self.seen_size = size
        self.raw_properties = None
        return False

    cdef Subscription find(self, octets tag, Py_ssize_t size):
        cdef Subscription last = self.last_found
        if last is not None and same_octets(last.tag_octets, tag, size):
            return last
        last = self.subscriptions.get(PyBytes_FromStringAndSize(<const char*>tag, size))
        if last is not None:
            self.last_found = last
        return last

    cdef int write_body(self, octets at, Py_ssize_t size) except -1:
        """Add to the body; the caller has seen to it that it doesn't pass the announced size."""
        if size == 0:
            return 0  # an empty frame, perhaps before there is room at all
        if self.filled + size > self.allocated:
            self.make_room(self.filled + size)
        memcpy(PyBytes_AS_STRING(<object>self.body) + self.filled, at, size)
        self.filled += size
        return 0

    cdef int make_room(self, Py_ssize_t needed) except -1:
        cdef Py_ssize_t room = max(<Py_ssize_t>PREALLOCATE_MAX, 2 * self.allocated, needed)
        if <uint64_t>room > self.body_size:
            room = self.body_size
        if self.body is NULL:
            self.body = PyBytes_FromStringAndSize_raw(NULL, room)
        else:
            self.allocated = 0
            _PyBytes_Resize(&self.body, room)
        self.allocated = room
        return 0

    cdef object take_body(self):
        """The complete body."""
        if self.body is NULL:
            return b""
        body = <object>self.body
        self.drop_body()
        return body

    cdef void drop_body(self) noexcept:
        cdef PyObject* body = self.body
        self.body = NULL
        self.filled = self.allocated = 0
        Py_XDECREF(body)

    cdef void end_content(self) noexcept:
        self.awaited = CONTENT_METHOD
        self.subscription = None
        self.swallowed = False
        self.method = None
        self.properties = None
        self.drop_body()


cdef inline bint same_octets(bytes known, octets at, Py_ssize_t size) noexcept:
    return (PyBytes_GET_SIZE(known) == size
            and memcmp(PyBytes_AS_STRING(known), at, size) == 0)


cdef inline object shared_string(Cursor* cursor, object known):
    """The next short string; ``known`` itself where that is the same."""
    cdef Py_ssize_t size = take(cursor, 1)[0]
    cdef octets at = take(cursor, size)
    return known if same_text(known, at, size) else text_or_bytes(at, size)


cdef object tag_octets(consumer_tag):
    return consumer_tag.encode() if isinstance(consumer_tag, str) else bytes(consumer_tag)


# ------------------------------------------------------------------------------------------------
# The decoder
# ------------------------------------------------------------------------------------------------

cdef str OUT_OF_MEMORY = "out of memory"
cdef str BROKEN_OFF = "decoding was broken off"

cdef enum Step:
    FRAME         # the next octet begins a frame, or lies in the one that is being carried
    BODY_PAYLOAD  # inside a body frame, whose payload goes straight to where it belongs
    BODY_END      # the end octet of that frame


@cython.final
cdef class FrameDecoder:
    """Bytes in, frames out; the messages of subscribed consumers go straight to their backlog."""

    cdef public int64_t frame_max, max_header_size
    cdef public uint64_t max_message_size
    cdef int nesting
    cdef readonly uint64_t frames_direct, messages_direct
    #: next_frame() returns False after so many direct messages; 0: no limit.
    cdef public uint32_t burst
    cdef object message_class

    # Input: the chunk that is being read, the chunks behind it, and the beginning of a frame that
    # no chunk had whole. A chunk is let go of when its last octet has been read.
    cdef bytes chunk
    cdef octets at
    cdef octets end
    cdef list later
    cdef unsigned char* carry
    cdef Py_ssize_t carried, carry_size

    # The frame that is being read.
    cdef Step step
    cdef int frame_type, channel_number
    cdef Py_ssize_t frame_size       # of the payload
    cdef Py_ssize_t payload_missing  # in the step BODY_PAYLOAD
    cdef ChannelState body_channel   # of a body frame
    cdef uint32_t method_index       # of a method frame

    cdef dict channels
    cdef int last_number             # a cache of one: most frames are of the channel of the last
    cdef ChannelState last_channel
    cdef list tokens                 # of subscriptions that got messages
    cdef uint64_t taken              # how often they were taken, and 1

    cdef bint started, busy
    cdef int failure                 # the reply code of the error; 0: none
    cdef object failure_text

    def __cinit__(
        self,
        message_class,
        *,
        frame_max=131072,
        max_header_size=1 << 20,
        max_message_size=128 << 20,
        max_nesting=100,
    ):
        if not issubclass(message_class, tuple):
            raise TypeError("message_class must be a subclass of tuple")
        self.message_class = message_class
        self.frame_max = frame_max
        self.max_header_size = max_header_size
        self.max_message_size = max_message_size
        self.max_nesting = max_nesting
        self.later = []
        self.channels = {}
        self.tokens = []
        self.taken = 1
        self.last_number = -1

    def __dealloc__(self):
        PyMem_Free(self.carry)

    @property
    def max_nesting(self):
        """How deep tables and arrays may lie in the outermost table."""
        return self.nesting

    @max_nesting.setter
    def max_nesting(self, int value):
        if not 0 <= value <= MAX_DECODED_NESTING:
            raise ValueError(f"max_nesting must be between 0 and {MAX_DECODED_NESTING}")
        self.nesting = value

    @property
    def buffered(self):
        """Octets that were fed and could not be used yet."""
        return self.carried + (self.end - self.at) + sum(map(len, self.later))

    @property
    def ready(self):
        """Whether take_ready() has something to give out."""
        return len(self.tokens) != 0

    # -- the public calls

    def feed(self, data):
        """Hand in what has come; next_frame() reads it."""
        if self.failure:
            memoryview(data)  # not anything at all, even then
            return
        try:
            chunk = data if PyBytes_CheckExact(data) else bytes(memoryview(data))
            if self.chunk is None and not self.busy:
                self.open_chunk(chunk)
            else:
                self.later.append(chunk)
        except MemoryError:
            self.fail(RESOURCE_ERROR, OUT_OF_MEMORY)

    def next_frame(self):
        """The next frame that is no direct delivery; None: more data is needed; False: a burst."""
        if self.failure:
            raise DecodeError(self.failure, self.failure_text)
        if self.busy:  # from a finalizer, in the middle of an allocation
            raise RuntimeError("next_frame() is running already")
        self.busy = True
        try:
            return self.drain()
        except DecodeError as error:
            self.fail(error.reply_code, error.reply_text)
            raise
        except FieldError as error:
            self.fail(SYNTAX_ERROR, f"arguments of {method_name(self.method_index)}: {error}")
            raise DecodeError(self.failure, self.failure_text) from error
        except MemoryError as error:
            self.fail(RESOURCE_ERROR, OUT_OF_MEMORY)
            raise DecodeError(RESOURCE_ERROR, OUT_OF_MEMORY) from error
        except BaseException:
            self.fail(INTERNAL_ERROR, BROKEN_OFF)
            raise
        finally:
            self.busy = False

    def subscribe(self, int channel_number, consumer_tag, Backlog backlog not None, channel, token):
        """Deliver ``consumer_tag``'s messages of that channel to ``backlog``, whole."""
        cdef ChannelState state = self.channel_state(channel_number)
        cdef bytes tag = tag_octets(consumer_tag)
        state.subscriptions[tag] = Subscription(backlog, channel, token, tag)
        state.last_found = None

    def unsubscribe(self, int channel_number, consumer_tag):
        """End that. A content that has begun is still finished."""
        cdef ChannelState state = self.channels.get(channel_number)
        if state is not None:
            state.subscriptions.pop(tag_octets(consumer_tag), None)
            state.last_found = None

    def collect_confirms(self, int channel_number, list confirms, token):
        """Put the Basic.Ack and Basic.Nack of that channel there; return them again with None."""
        cdef ChannelState state = self.channel_state(channel_number)
        state.confirms = confirms
        state.confirms_token = token

    def take_ready(self):
        """The tokens of those who got something since the last call, in the order they did."""
        if not self.tokens:
            return []
        tokens, self.tokens = self.tokens, []
        self.taken += 1
        return tokens

    def forget_channel(self, int channel_number):
        """The channel is gone, with its subscriptions and what was on its way in."""
        cdef ChannelState state = self.channels.pop(channel_number, None)
        if state is not None:
            state.forgotten = True
            state.end_content()
        self.last_number = -1
        self.last_channel = None

    # -- input

    cdef int open_chunk(self, bytes chunk) except -1:
        self.chunk = chunk
        self.at = <octets>PyBytes_AS_STRING(chunk)
        self.end = self.at + PyBytes_GET_SIZE(chunk)
        return 0

    cdef bint refill(self) except -1:
        """Go on with what was fed meanwhile; False when nothing was."""
        self.chunk = None
        self.at = self.end = NULL
        if not self.later:
            return False
        later, self.later = self.later, []
        self.open_chunk(b"".join(later))
        return True

    cdef int carry_up_to(self, Py_ssize_t wanted) except -1:
        """Move octets of the chunk behind those carried, until ``wanted`` are there: 1, else 0."""
        cdef Py_ssize_t count = min(wanted - self.carried, self.end - self.at)
        cdef unsigned char* bigger
        cdef Py_ssize_t size = self.carried + count
        if size > self.carry_size:
            # At least doubled, so that octets are moved once on average; never more than the
            # frame, whose size is within the limit.
            size = min(wanted, max(size, 2 * self.carry_size, 512))
            bigger = <unsigned char*>PyMem_Realloc(self.carry, size)
            if bigger is NULL:
                raise MemoryError
            self.carry = bigger
            self.carry_size = size
        if count > 0:
            memcpy(self.carry + self.carried, self.at, count)
        self.carried += count
        self.at += count
        return self.carried >= wanted

    cdef int fail(self, int code, object text) except -1:
        """Nothing is read any more; memory is given back. Takes none itself to get that far."""
        self.failure = code
        self.failure_text = text
        self.chunk = None
        self.at = self.end = NULL
        self.later.clear()
        PyMem_Free(self.carry)
        self.carry = NULL
        self.carried = self.carry_size = 0
        self.body_channel = None
        for state in self.channels.values():
            (<ChannelState>state).end_content()
        return 0

    # -- frames

    cdef object drain(self):
        """Read frames until one is to be returned, the input is used up, or a burst is over."""
        cdef octets payload
        cdef uint64_t last = self.messages_direct + self.burst
        while True:
            if self.step != FRAME:
                if not self.stream_body() and not self.refill():
                    return None
                continue
            payload = NULL
            if not self.find_frame(&payload):
                if self.step == FRAME and not self.refill():
                    return None
                continue
            result = self.read_frame(payload)
            if result is not None:
                return result
            self.frames_direct += 1
            if self.messages_direct == last and self.burst:
                return False

    cdef int find_frame(self, octets* payload) except -1:
        """Point ``payload`` at a whole frame's: 1. More data is needed, or the step changed: 0."""
        cdef Py_ssize_t available = self.end - self.at
        if self.carried or available < HEAD_SIZE or not self.started:
            return self.find_split_frame(payload)
        self.read_head(self.at)
        if available < self.frame_size + FRAME_OVERHEAD:
            if self.streams():
                self.at += HEAD_SIZE
                return 0
            return self.carry_up_to(self.frame_size + FRAME_OVERHEAD)
        payload[0] = self.at + HEAD_SIZE
        self.at += self.frame_size + FRAME_OVERHEAD
        return self.check_end((self.at - 1)[0])

    cdef int find_split_frame(self, octets* payload) except -1:
        """The same for a frame whose beginning has been carried over from earlier chunks."""
        if not self.carried and self.end == self.at:
            return 0
        cdef bint head_known = self.carried >= HEAD_SIZE
        if not self.carried:
            self.check_type(self.at[0])
        if self.carried < HEAD_SIZE and not self.carry_up_to(HEAD_SIZE):
            if not self.started:
                self.check_protocol_header()
            return 0
        if not self.started and self.carry[0] == c"A":
            return self.find_protocol_header(payload)
        if not head_known:
            self.read_head(self.carry)
            if self.streams():
                self.carried = 0
                return 0
        if not self.carry_up_to(self.frame_size + FRAME_OVERHEAD):
            return 0
        self.carried = 0  # the octets stay where they are until the next frame is carried
        self.started = True
        payload[0] = self.carry + HEAD_SIZE
        return self.check_end(self.carry[HEAD_SIZE + self.frame_size])

    cdef int check_protocol_header(self) except -1:
        """A broker that refuses our version of the protocol begins and ends with its own."""
        if memcmp(self.carry, b"AMQP", min(self.carried, 4)) != 0:
            self.check_type_of_frame(self.carry[0])
        return 0

    cdef int find_protocol_header(self, octets* payload) except -1:
        self.check_protocol_header()
        if not self.carry_up_to(PROTOCOL_HEADER_SIZE):
            return 0
        self.carried = 0
        self.started = True
        self.frame_type = c"A"
        payload[0] = self.carry
        return 1

    cdef int check_type(self, unsigned char type) except -1:
        if type != c"A" or self.started:
            self.check_type_of_frame(type)
        return 0

    cdef int check_type_of_frame(self, unsigned char type) except -1:
        if (type != METHOD_FRAME and type != HEADER_FRAME and type != BODY_FRAME
                and type != HEARTBEAT_FRAME):
            raise DecodeError(FRAME_ERROR, f"unknown frame type {type}")
        return 0

    cdef inline int check_end(self, unsigned char octet) except -1:
        """1, or the error."""
        if octet != FRAME_END:
            raise DecodeError(FRAME_ERROR, f"a frame ends in {octet:#04x}, not 0xce")
        return 1

    cdef int read_head(self, octets head) except -1:
        """Check what can be known before the payload is there; a refused frame isn't awaited."""
        cdef int64_t limit = self.frame_max
        cdef int64_t size = load_u32(head + 3)
        self.frame_type = head[0]
        self.channel_number = load_u16(head + 1)
        if self.frame_type == HEADER_FRAME or self.frame_type == BODY_FRAME:
            if self.channel_number == 0:
                raise DecodeError(FRAME_ERROR, "content on channel 0")
            if self.frame_type == HEADER_FRAME and limit < self.max_header_size:
                limit = self.max_header_size
        elif self.frame_type == HEARTBEAT_FRAME:
            if self.channel_number != 0:
                raise DecodeError(FRAME_ERROR, f"heartbeat on channel {self.channel_number}")
        elif self.frame_type != METHOD_FRAME:
            raise DecodeError(FRAME_ERROR, f"unknown frame type {self.frame_type}")
        if size + FRAME_OVERHEAD > limit:
            raise DecodeError(
                FRAME_ERROR, f"a frame of {size + FRAME_OVERHEAD} octets, at most {limit}"
            )
        self.frame_size = size
        if self.frame_type == BODY_FRAME:
            self.check_body()
        return 0

    cdef int check_body(self) except -1:
        cdef ChannelState state = self.known_channel(self.channel_number)
        if state is None or state.awaited != CONTENT_BODY:
            raise DecodeError(
                UNEXPECTED_FRAME, f"body without a header on channel {self.channel_number}"
            )
        if <uint64_t>self.frame_size > state.missing:
            raise DecodeError(
                UNEXPECTED_FRAME,
                f"a body frame of {self.frame_size} octets on channel {self.channel_number} "
                f"where {state.missing} are missing",
            )
        self.body_channel = state
        return 0

    cdef inline ChannelState known_channel(self, int number):
        if number == self.last_number:
            return self.last_channel
        cdef ChannelState state = self.channels.get(number)
        if state is not None:
            self.last_number = number
            self.last_channel = state
        return state

    cdef ChannelState channel_state(self, int number):
        cdef ChannelState state = self.known_channel(number)
        if state is None:
            state = self.channels[number] = ChannelState()
        return state

    cdef object read_frame(self, octets payload):
        """What comes out for a whole frame; None where it was part of a direct delivery."""
        if self.frame_type == METHOD_FRAME:
            return self.read_method_frame(payload)
        elif self.frame_type == HEADER_FRAME:
            return self.read_header_frame(payload)
        elif self.frame_type == BODY_FRAME:
            return self.read_body_frame(payload)
        elif self.frame_type == HEARTBEAT_FRAME:
            return frame.Heartbeat()
        return frame.ProtocolHeader(payload[5], payload[6], payload[7])

    # -- methods

    cdef object read_method_frame(self, octets payload):
        cdef uint32_t index
        cdef Cursor cursor
        if self.frame_size < 4:
            raise DecodeError(FRAME_ERROR, f"a method frame of {self.frame_size} octets")
        self.method_index = index = load_u32(payload)
        cursor.at = payload + 4
        cursor.end = payload + self.frame_size
        if index == BASIC_DELIVER or index == BASIC_GET_OK or index == BASIC_RETURN:
            return self.begin_content(index, &cursor)
        return self.other_method(index, &cursor)

    cdef object other_method(self, uint32_t index, Cursor* cursor):
        cdef Layout layout = LAYOUTS.get(index)
        if layout is None:
            raise DecodeError(
                NOT_IMPLEMENTED, f"unknown method {index & 0xFFFF} of class {index >> 16}"
            )
        cdef ChannelState state = self.check_sequence(index)
        method = read_method(layout, cursor, self.nesting)
        if state is not None and state.confirms is not None:
            if index == BASIC_ACK or index == BASIC_NACK:
                return self.collect(state, method)
        if index == BASIC_PUBLISH:
            state = self.channel_state(self.channel_number)
            state.awaited = CONTENT_HEADER
            state.method = method
        elif state is not None and (index == CHANNEL_CLOSE or index == CHANNEL_CLOSE_OK):
            state.end_content()
        return self.method_frame(method)

    cdef object collect(self, ChannelState state, method):
        """A confirm: without a frame around it, and five calls that pass it on, half the price."""
        state.confirms.append(method)
        self.report(state.confirms_token, &state.confirms_reported)
        return None

    cdef inline int report(self, token, uint64_t* reported) except -1:
        """Put a token on the list, once for each `take_ready()`."""
        if reported[0] != self.taken:
            reported[0] = self.taken
            self.tokens.append(token)
        return 0

    cdef ChannelState check_sequence(self, uint32_t index):
        """May this method come now, on this channel? The channel's state, if there is any."""
        cdef ChannelState state
        if (index >> 16 == CONNECTION_CLASS) != (self.channel_number == 0):
            raise DecodeError(
                COMMAND_INVALID, f"{method_name(index)} on channel {self.channel_number}"
            )
        state = self.known_channel(self.channel_number)
        if (state is not None and state.awaited != CONTENT_METHOD
                and index != CHANNEL_CLOSE and index != CHANNEL_CLOSE_OK):
            raise DecodeError(
                UNEXPECTED_FRAME,
                f"{method_name(index)} inside an unfinished content "
                f"on channel {self.channel_number}",
            )
        return state

    cdef object begin_content(self, uint32_t index, Cursor* cursor):
        """Deliver, GetOk or Return: the hot rows of METHOD_LAYOUTS."""
        cdef ChannelState state = self.check_sequence(index)
        cdef _ContentMethod method
        cdef Subscription subscription = None
        if state is None:
            state = self.channel_state(self.channel_number)
        if index == BASIC_DELIVER:
            method = <_ContentMethod>bare_light_object(Deliver, 0)
            subscription = self.read_consumer_tag(state, method, cursor)
        elif index == BASIC_GET_OK:
            method = <_ContentMethod>bare_light_object(GetOk, 0)
        else:
            method = <_ContentMethod>bare_light_object(Return, 0)
            method.number = load_u16(take(cursor, 2))
            set_text(method, 2, short_string(cursor))
        if index != BASIC_RETURN:
            method.tag = load_u64(take(cursor, 8))
            method.bit = take(cursor, 1)[0] & 1
        state.exchange = shared_string(cursor, state.exchange)
        set_text(method, 0, state.exchange)
        state.routing_key = shared_string(cursor, state.routing_key)
        set_text(method, 1, state.routing_key)
        if index == BASIC_GET_OK:
            method.number = load_u32(take(cursor, 4))
        state.awaited = CONTENT_HEADER
        state.method = method
        state.subscription = subscription
        if subscription is not None:
            return None
        return self.method_frame(method)

    cdef Subscription read_consumer_tag(self, ChannelState state, _ContentMethod method,
                                        Cursor* cursor):
        cdef Py_ssize_t size = take(cursor, 1)[0]
        cdef octets at = take(cursor, size)
        cdef Subscription subscription = state.find(at, size)
        if subscription is None:
            set_text(method, 2, text_or_bytes(at, size))
        else:
            set_text(method, 2, subscription.tag)
        return subscription

    cdef object method_frame(self, method):
        result = self.new_frame(frame.Method)
        result.method = method
        return result

    cdef object new_frame(self, frame_class):
        """A frame without its Python constructors: an ack in 0.25 us, not 0.5."""
        result = bare_object(frame_class, 0)
        result.frame_type = self.frame_type
        result.channel_number = self.channel_number
        return result

    # -- headers

    cdef object read_header_frame(self, octets payload):
        cdef ChannelState state
        cdef uint64_t body_size
        if self.frame_size < CONTENT_HEADER_SIZE:
            raise DecodeError(FRAME_ERROR, f"a header frame of {self.frame_size} octets")
        if load_u16(payload) != BASIC_CLASS:
            raise DecodeError(FRAME_ERROR, f"a content header of class {load_u16(payload)}")
        state = self.known_channel(self.channel_number)
        if state is None or state.awaited != CONTENT_HEADER:
            raise DecodeError(
                UNEXPECTED_FRAME, f"header without a method on channel {self.channel_number}"
            )
        body_size = load_u64(payload + 4)
        state.awaited = CONTENT_BODY
        state.body_size = state.missing = body_size
        if body_size > self.max_message_size:
            state.swallowed = True
            return OversizedContent(
                self.channel_number, state.method, body_size, self.max_message_size
            )
        properties = self.new_properties(
            state, payload + CONTENT_HEADER_SIZE, self.frame_size - CONTENT_HEADER_SIZE
        )
        if state.subscription is None:
            if body_size == 0:
                state.end_content()
            result = self.new_frame(frame.Header)
            result.body_size = body_size
            result.properties = properties
            return result
        state.properties = properties
        if body_size == 0:
            self.finish(state)
        return None

    cdef object new_properties(self, ChannelState state, octets at, Py_ssize_t size):
        cdef _RawProperties properties
        if size == 0:
            properties = <_RawProperties>bare_light_object(BasicProperties, 0)
            properties.raw_octets = new_reference(b"")
        elif state.sees_again(at, size):
            if state.raw_properties is None:
                state.raw_properties = PyBytes_FromStringAndSize(<const char*>at, size)
            properties = <_RawProperties>bare_light_object(BasicProperties, 0)
            properties.raw_octets = new_reference(state.raw_properties)
        else:
            properties = <_RawProperties>bare_light_object(BasicProperties, size)
            memcpy(own_octets(properties), at, size)
            properties.number = size
        properties.nesting = self.nesting
        return properties

    # -- bodies

    cdef object read_body_frame(self, octets payload):
        if self.body_channel.forgotten:
            self.check_body()  # its channel went while the frame was carried
        cdef ChannelState state = self.body_channel
        cdef bint direct = state.subscription is not None or state.swallowed
        state.missing -= self.frame_size
        if state.subscription is not None and not state.swallowed:
            state.write_body(payload, self.frame_size)
        if state.missing == 0:
            self.finish(state)
        if direct:
            return None
        result = self.new_frame(frame.Body)
        result.fragment = PyBytes_FromStringAndSize(<const char*>payload, self.frame_size)
        return result

    cdef bint streams(self) except -1:
        """Whether the body frame that begins here is read as it comes; sets the step if so."""
        if self.frame_type != BODY_FRAME:
            return False
        if self.body_channel.subscription is None and not self.body_channel.swallowed:
            return False
        self.payload_missing = self.frame_size
        self.step = BODY_PAYLOAD
        return True

    cdef bint stream_body(self) except -1:
        """Read on in a body frame that no chunk has whole; False when more data is needed."""
        cdef ChannelState state = self.body_channel
        cdef Py_ssize_t count = min(self.payload_missing, self.end - self.at)
        if state.forgotten:
            self.check_body()  # its channel went meanwhile
        if not state.swallowed:
            state.write_body(self.at, count)
        self.at += count
        self.payload_missing -= count
        if self.payload_missing:
            return False
        self.step = BODY_END
        if self.at == self.end:
            return False
        self.check_end(self.at[0])
        self.at += 1
        self.step = FRAME
        self.frames_direct += 1
        state.missing -= self.frame_size
        if state.missing == 0:
            self.finish(state)
        return True

    cdef int finish(self, ChannelState state) except -1:
        """A content is complete: hand it to its subscription, if it has one."""
        cdef Subscription subscription = state.subscription
        if subscription is not None and not state.swallowed:
            subscription.backlog.push(new_message(
                self.message_class, subscription.channel, state.method, state.properties,
                state.take_body(),
            ))
            self.messages_direct += 1
            self.report(subscription.token, &subscription.reported)
        state.end_content()
        return 0


# ------------------------------------------------------------------------------------------------
# Calls to bytes
# ------------------------------------------------------------------------------------------------

cdef object PIKA_ENCODE = spec.BasicProperties.encode


cdef inline void store_u16(unsigned char* at, uint16_t value) noexcept nogil:
    at[0] = <unsigned char>(value >> 8)
    at[1] = <unsigned char>value


cdef inline void store_u32(unsigned char* at, uint32_t value) noexcept nogil:
    store_u16(at, <uint16_t>(value >> 16))
    store_u16(at + 2, <uint16_t>value)


cdef inline void store_u64(unsigned char* at, uint64_t value) noexcept nogil:
    store_u32(at, <uint32_t>(value >> 32))
    store_u32(at + 4, <uint32_t>value)


@cython.final
cdef class OutputBuffer:
    """Encoded frames of all channels of one connection, in the order of the calls."""

    cdef readonly bint held
    cdef public Py_ssize_t limit
    cdef readonly uint64_t frames
    cdef Py_ssize_t largest_frame
    cdef PyObject* octets          # bytes in the making, nobody else holds them; NULL: no room
    cdef Py_ssize_t used, size
    cdef Py_ssize_t expected       # octets that go at a time, when it is many of them
    cdef bint busy                 # a call is being encoded

    def __cinit__(self, *, frame_max=131072, limit=65536):
        self.frame_max = frame_max
        self.limit = limit

    def __dealloc__(self):
        Py_XDECREF(self.octets)

    @property
    def frame_max(self):
        """The largest frame the peer takes; bodies are cut to fit."""
        return self.largest_frame

    @frame_max.setter
    def frame_max(self, Py_ssize_t value):
        if value <= FRAME_OVERHEAD:
            raise ValueError(f"frame_max must be more than {FRAME_OVERHEAD}, not {value}")
        self.largest_frame = value

    def __len__(self):
        return self.used

    def hold(self, bint held):
        """Whether what is encoded may wait until the buffer is full."""
        self.held = held

    def take(self):
        """Everything that was encoded; the buffer is empty then."""
        cdef PyObject* octets
        cdef Py_ssize_t used
        self.check_idle()
        if self.used < HAND_OVER:
            taken = PyBytes_FromStringAndSize(
                NULL if self.octets is NULL else PyBytes_AS_STRING(<object>self.octets), self.used
            )
            self.used = self.expected = 0
            if self.size > HAND_OVER:
                self.size = 0
                Py_CLEAR(self.octets)
            return taken
        octets, used = self.octets, self.used
        self.expected = min(used, self.limit + self.limit // 4)
        self.octets = NULL
        self.used = self.size = 0
        _PyBytes_Resize(&octets, used)
        taken = <object>octets
        Py_XDECREF(octets)
        return taken

    def channel(self, int number):
        """The encoder of one channel."""
        return ChannelEncoder(self, number)

    cdef inline int check_idle(self) except -1:
        # User code runs while a call is encoded only in odd corners: the finalizer of something
        # that is collected meanwhile, a dict of headers with an items() of its own.
        if self.busy:
            raise RuntimeError("the output buffer is in the middle of another call")
        return 0

    cdef inline unsigned char* room(self, Py_ssize_t count) except NULL:
        """Where the next ``count`` octets go; they count as used. Nothing else hands out room."""
        if count > self.size - self.used:
            self.grow(count)
        self.used += count
        return <unsigned char*>PyBytes_AS_STRING(<object>self.octets) + self.used - count

    cdef int grow(self, Py_ssize_t count) except -1:
        # After a full buffer one of the same size: growing to it copied each octet twice, and went
        # beyond the 128 KiB from where on malloc maps fresh pages; a third of a publish's cost.
        cdef Py_ssize_t size = max(
            self.used + count, 2 * self.size, self.expected + self.expected // 16,
            <Py_ssize_t>FIRST_ROOM
        )
        cdef PyObject* bigger
        # Not realloc: where that fails it takes away what was encoded before.
        bigger = PyBytes_FromStringAndSize_raw(NULL, size)
        if self.octets is not NULL:
            memcpy(PyBytes_AS_STRING(<object>bigger), PyBytes_AS_STRING(<object>self.octets),
                   self.used)
            Py_XDECREF(self.octets)
        self.octets = bigger
        self.size = size
        return 0

    cdef inline bint due(self) noexcept:
        return not self.held or self.used >= self.limit

    cdef inline unsigned char* method_frame(self, int channel, uint32_t index,
                                            Py_ssize_t arguments) except NULL:
        """Begin and end a method frame; the arguments go where the result points to."""
        cdef unsigned char* at = self.frame(METHOD_FRAME, channel, 4 + arguments)
        store_u32(at, index)
        return at + 4

    cdef inline unsigned char* frame(  # no-cython-lint: not the module, which isn't used here
        self, int type, int channel, Py_ssize_t size
    ) except NULL:
        cdef unsigned char* at = self.room(size + FRAME_OVERHEAD)
        at[0] = <unsigned char>type
        store_u16(at + 1, <uint16_t>channel)
        store_u32(at + 3, <uint32_t>size)
        at[HEAD_SIZE + size] = FRAME_END
        self.frames += 1
        return at + HEAD_SIZE

    cdef int bodies(self, int channel, octets at, Py_ssize_t size) except -1:
        """The body, in frames of at most frame_max octets."""
        cdef Py_ssize_t step = self.largest_frame - FRAME_OVERHEAD
        cdef Py_ssize_t count
        if size > step:
            # All the room at once: growing bit by bit would move a large body's frames again.
            self.room(size + (size // step + 1) * FRAME_OVERHEAD)
            self.used -= size + (size // step + 1) * FRAME_OVERHEAD
        while size > 0:
            count = min(size, step)
            memcpy(self.frame(BODY_FRAME, channel, count), at, count)
            at += count
            size -= count
        return 0


@cython.final
cdef class ChannelEncoder:
    """Encodes what one channel sends often. True means: write the buffer out now."""

    cdef OutputBuffer output
    cdef readonly int number
    #: While it is False nothing is encoded, and True returned: the caller's slow path says why.
    cdef public bint open
    #: What basic_ack() and basic_publish() call when it is time to write.
    cdef public object flush
    #: Acks are minded by a ledger: slow_ack() does all that then.
    cdef public bint minded
    #: The channel's own methods, for all that is rare.
    cdef public object slow_ack, slow_publish
    #: Makes the result of basic_publish(); with the arguments in confirm mode, None in any other.
    cdef public object succeeded, expect

    def __cinit__(self, OutputBuffer output not None, int number):
        if not 0 <= number <= 0xFFFF:
            raise ValueError(f"channel numbers are 0 to 65535, not {number}")
        self.output = output
        self.number = number
        self.open = True

    def ack(self, delivery_tag=0, multiple=False):
        """Basic.Ack."""
        return self.settle(BASIC_ACK, delivery_tag, 1 if multiple else 0)

    def basic_ack(self, delivery_tag=0, multiple=False):
        """All that the channel's method of this name does, unless it is minded."""
        if self.minded:
            self.slow_ack(delivery_tag, multiple)
        elif self.settle(BASIC_ACK, delivery_tag, 1 if multiple else 0):
            self.flush()

    def nack(self, delivery_tag=0, multiple=False, requeue=True):
        """Basic.Nack."""
        return self.settle(
            BASIC_NACK, delivery_tag, (1 if multiple else 0) | (2 if requeue else 0)
        )

    def reject(self, delivery_tag, requeue=True):
        """Basic.Reject."""
        return self.settle(BASIC_REJECT, delivery_tag, 1 if requeue else 0)

    cdef object settle(self, uint32_t index, delivery_tag, int bits):
        if not self.open:
            return True
        cdef uint64_t tag = delivery_tag_of(delivery_tag)
        cdef unsigned char* at
        self.output.check_idle()
        at = self.output.method_frame(self.number, index, 9)
        store_u64(at, tag)
        at[8] = <unsigned char>bits
        return self.output.due()

    def publish(self, exchange, routing_key, body, properties=None, mandatory=False):
        """Basic.Publish with its header and body: all of it, or an exception and nothing."""
        if not self.open:
            return True
        return self.publish_or_raise(exchange, routing_key, body, properties, mandatory)

    def basic_publish(self, exchange, routing_key, body, properties=None, mandatory=False):
        """All that the channel's method of this name does, unless it is refused."""
        cdef bint due
        if not self.open:
            return self.slow_publish(exchange, routing_key, body, properties, mandatory)
        try:
            due = self.publish_or_raise(exchange, routing_key, body, properties, mandatory)
        except Exception:
            return self.slow_publish(exchange, routing_key, body, properties, mandatory)
        # Made before it is written: a transport may answer within write().
        if self.expect is None:
            result = self.succeeded()
        else:
            result = self.expect(exchange, routing_key, body, mandatory)
        if due:
            self.flush()
        return result

    cdef bint publish_or_raise(self, exchange, routing_key, body, properties,
                               bint mandatory) except -1:
        cdef OutputBuffer output = self.output
        cdef Py_ssize_t used
        cdef uint64_t frames
        cdef bytes encoded = None
        if properties is not None and encode_of(properties) is not PIKA_ENCODE:
            encoded = b"".join(properties.encode())  # the user's own: runs before anything else
            properties = None
        if not PyBytes_CheckExact(body):
            body = body_octets(body)
        output.check_idle()
        used = output.used
        frames = output.frames
        output.busy = True
        try:
            self.publish_frames(exchange, routing_key, <bytes>body, properties, encoded, mandatory)
        except BaseException:
            output.used = used
            output.frames = frames
            raise
        finally:
            output.busy = False
        return output.due()

    cdef int publish_frames(self, exchange, routing_key, bytes body, properties, bytes encoded,
                            bint mandatory) except -1:
        cdef OutputBuffer output = self.output
        cdef Py_ssize_t body_size = PyBytes_GET_SIZE(body)
        cdef ShortString exchange_octets, key_octets
        cdef unsigned char* at
        get_short_string(exchange, "exchange", &exchange_octets)
        get_short_string(routing_key, "routing_key", &key_octets)
        at = output.method_frame(
            self.number, BASIC_PUBLISH, 2 + 1 + exchange_octets.size + 1 + key_octets.size + 1
        )
        store_u16(at, 0)  # the ticket, of no use since AMQP 0-9-1
        at = store_short_string(at + 2, &exchange_octets)
        at = store_short_string(at, &key_octets)
        at[0] = mandatory

        if properties is None:
            if encoded is None:
                encoded = b"\0\0"  # no flags
            at = output.frame(
                HEADER_FRAME, self.number, CONTENT_HEADER_SIZE + PyBytes_GET_SIZE(encoded)
            )
            memcpy(at + CONTENT_HEADER_SIZE, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
            store_content_header(at, body_size)
        else:
            self.header_frame(properties, body_size)
        return output.bodies(self.number, <octets>PyBytes_AS_STRING(body), body_size)

    cdef int header_frame(self, properties, Py_ssize_t body_size) except -1:
        """A header frame with properties; how long it gets is known at the end."""
        cdef OutputBuffer output = self.output
        cdef Py_ssize_t begin = output.used
        cdef Py_ssize_t size
        cdef int flags
        cdef unsigned char* at
        output.room(HEAD_SIZE + CONTENT_HEADER_SIZE + 2)
        flags = put_properties(output, properties)
        size = output.used - begin - HEAD_SIZE
        output.room(1)  # for the end octet, while what was written still counts: grow() moves that
        output.used = begin
        at = output.frame(HEADER_FRAME, self.number, size)
        store_content_header(at, body_size)
        store_u16(at + CONTENT_HEADER_SIZE, <uint16_t>flags)
        return 0


cdef inline void store_content_header(unsigned char* at, Py_ssize_t body_size) noexcept nogil:
    store_u16(at, BASIC_CLASS)
    store_u16(at + 2, 0)  # the weight, never used
    store_u64(at + 4, body_size)


cdef inline uint64_t delivery_tag_of(object delivery_tag) except? 0xFFFFFFFFFFFFFFFF:
    if not PyLong_CheckExact(delivery_tag):
        if delivery_tag is None:
            return 0
        if isinstance(delivery_tag, bool) or not isinstance(delivery_tag, int):
            raise TypeError(f"delivery_tag must be an int, not {type(delivery_tag).__name__}")
    try:
        return PyLong_AsUnsignedLongLong(delivery_tag)
    except OverflowError:
        raise ValueError(
            f"delivery_tag must be between 0 and 2**64 - 1, not {delivery_tag}"
        ) from None


cdef object encode_of(properties):
    encode = getattr(type(properties), "encode", None)
    if encode is None or isinstance(properties, (str, bytes)):
        raise TypeError(
            f"properties must be BasicProperties or None, not {type(properties).__name__}"
        )
    return encode


cdef bytes body_octets(body):
    try:
        return body.encode() if isinstance(body, str) else bytes(memoryview(body))
    except TypeError:
        raise TypeError(f"body must be str or bytes-like, not {type(body).__name__}") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"body can't be encoded as UTF-8: {error}") from error


# ------------------------------------------------------------------------------------------------
# Strings, values and tables to the wire, byte for byte as pika 1.4.4 writes them
# ------------------------------------------------------------------------------------------------

cdef struct ShortString:
    const char* at
    Py_ssize_t size


cdef int get_octets(object value, str name, ShortString* string) except -1:
    """The UTF-8 of a str, or what a bytes object holds, for as long as that object lives."""
    if isinstance(value, str):
        try:
            string.at = PyUnicode_AsUTF8AndSize(value, &string.size)
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} can't be encoded as UTF-8: {error}") from error
    elif isinstance(value, bytes):
        string.at = PyBytes_AS_STRING(value)
        string.size = PyBytes_GET_SIZE(value)
    else:
        raise TypeError(f"{name} must be str or bytes, not {type(value).__name__}")
    return 0


cdef inline int get_short_string(object value, str name, ShortString* string) except -1:
    get_octets(value, name, string)
    if string.size > 255:
        raise ShortStringTooLong(PyBytes_FromStringAndSize(string.at, string.size))
    return 0


cdef inline unsigned char* store_short_string(unsigned char* at, ShortString* string) noexcept:
    at[0] = <unsigned char>string.size
    memcpy(at + 1, string.at, string.size)
    return at + 1 + string.size


cdef inline int put_short_string(OutputBuffer output, object value, str name) except -1:
    cdef ShortString string
    get_short_string(value, name, &string)
    store_short_string(output.room(1 + string.size), &string)
    return 0


cdef int put_tagged(OutputBuffer output, unsigned char tag, ShortString* string) except -1:
    """A long string: tag, 4 octets of length, octets."""
    cdef unsigned char* at = output.room(5 + string.size)
    at[0] = tag
    store_u32(at + 1, <uint32_t>string.size)
    memcpy(at + 5, string.at, string.size)
    return 0


cdef int64_t integer_of(object value, str name, int64_t low, int64_t high) except? -1:
    cdef int overflow = 0
    cdef int64_t result
    if not isinstance(value, int):
        try:
            value = value.__index__()
        except AttributeError:
            raise TypeError(f"{name} must be an int, not {type(value).__name__}") from None
    result = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or result < low or result > high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")
    return result


cdef int put_properties(OutputBuffer output, object properties) except -1:
    """The properties that are set; returns their flags."""
    cdef octets types = <octets>PyBytes_AS_STRING(PROPERTY_TYPES)
    cdef int i, flags = 0
    cdef str name
    for i in range(PROPERTY_COUNT):
        name = PROPERTY_NAMES[i]
        value = getattr(properties, name)
        if value is None:
            continue
        flags |= 0x8000 >> i
        if types[i] == c"s" or types[i] == c"r":
            put_short_string(output, value, name)
        elif types[i] == c"F":
            put_table(output, value, name, 0)
        elif types[i] == c"B":
            output.room(1)[0] = <unsigned char>integer_of(value, name, 0, 255)
        else:
            store_u64(output.room(8), unsigned_of(value, name))
    return flags


cdef uint64_t unsigned_of(object value, str name) except? 0xFFFFFFFFFFFFFFFF:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    try:
        return PyLong_AsUnsignedLongLong(value)
    except OverflowError:
        raise ValueError(f"{name} must be between 0 and 2**64 - 1, not {value}") from None


cdef int begin_nested(OutputBuffer output, str name, int depth) except -1:
    if depth > MAX_ENCODED_NESTING:
        raise ValueError(f"{name} is nested deeper than {MAX_ENCODED_NESTING} levels")
    output.room(4)
    return 0


cdef int end_nested(OutputBuffer output, Py_ssize_t begin) except -1:
    """Put the length where begin_nested left room for it."""
    cdef Py_ssize_t end = output.used
    output.used = begin
    store_u32(output.room(4), <uint32_t>(end - begin - 4))
    output.used = end
    return 0


cdef int put_table(OutputBuffer output, object table, str name, int depth) except -1:
    cdef Py_ssize_t begin = output.used
    begin_nested(output, name, depth)
    if type(table) is dict:
        for key, value in (<dict>table).items():
            put_short_string(output, key, "a key of headers")
            put_value(output, value, name, depth)
    elif table:
        try:
            entries = table.items()
        except AttributeError:
            raise TypeError(f"{name} must be a dict, not {type(table).__name__}") from None
        for key, value in entries:
            put_short_string(output, key, "a key of headers")
            put_value(output, value, name, depth)
    return end_nested(output, begin)


cdef int put_array(OutputBuffer output, list array, str name, int depth) except -1:
    cdef Py_ssize_t begin = output.used
    begin_nested(output, name, depth)
    for value in array:
        put_value(output, value, name, depth)
    return end_nested(output, begin)


cdef int put_value(OutputBuffer output, object value, str name, int depth) except -1:
    """One field value, its type chosen as pika chooses it."""
    cdef ShortString string
    cdef unsigned char* at
    if isinstance(value, str):
        get_octets(value, name, &string)
        put_tagged(output, c"S", &string)
    elif isinstance(value, bytes):
        get_octets(value, name, &string)
        put_tagged(output, c"x", &string)
    elif isinstance(value, bool):
        at = output.room(2)
        at[0] = c"t"
        at[1] = value is True
    elif isinstance(value, int):
        put_integer(output, value, name)
    elif value is None:
        output.room(1)[0] = c"V"
    elif isinstance(value, dict):
        output.room(1)[0] = c"F"
        put_table(output, value, name, depth + 1)
    elif isinstance(value, list):
        output.room(1)[0] = c"A"
        put_array(output, value, name, depth + 1)
    elif isinstance(value, (datetime, Decimal)):
        try:
            if isinstance(value, datetime):
                put_datetime(output, value)
            else:
                put_decimal(output, value)
        except (ArithmeticError, ValueError) as error:
            raise ValueError(f"{name}: {value!r} can't be sent: {error}") from error
    else:
        raise UnsupportedField(f"{name}: values of {type(value).__name__} can't be sent", value)
    return 0


# pika 1.3 writes what does not fit 32 bits as 'l' unsigned, and as 'L' below zero.
cdef bint PIKA_1_3 = b"".join(spec.BasicProperties(headers={"": -1 << 40}).encode())[7] == c"L"


cdef int put_integer(OutputBuffer output, object value, str name) except -1:
    cdef int64_t number
    cdef unsigned char* at
    if PIKA_1_3 and value > INT64_MAX:
        number = <int64_t>unsigned_of(value, name)
        at = output.room(9)
        at[0] = c"l"
        store_u64(at + 1, <uint64_t>number)
        return 0
    number = integer_of(value, name, INT64_MIN, INT64_MAX)
    if (-0x80000000 <= number <= 0x7FFFFFFF
            and (PyLong_CheckExact(value) or long_long is int
                 or not isinstance(value, long_long))):
        at = output.room(5)
        at[0] = c"I"
        store_u32(at + 1, <uint32_t>number)
    else:
        at = output.room(9)
        at[0] = c"L" if PIKA_1_3 and number < 0 else c"l"
        store_u64(at + 1, <uint64_t>number)
    return 0


cdef int put_datetime(OutputBuffer output, object value) except -1:
    cdef uint64_t seconds = unsigned_of(timegm(value.utctimetuple()), "its timestamp")
    cdef unsigned char* at = output.room(9)
    at[0] = c"T"
    store_u64(at + 1, seconds)
    return 0


cdef int put_decimal(OutputBuffer output, object value) except -1:
    cdef unsigned char* at
    value = value.normalize()
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError("not a number")
    scale = -exponent if exponent < 0 else 0
    unscaled = int(value * Decimal(10) ** scale)
    at = output.room(6)
    at[0] = c"D"
    at[1] = <unsigned char>integer_of(scale, "its scale", 0, 255)
    store_u32(at + 2, <uint32_t>integer_of(unscaled, "its digits", -0x80000000, 0x7FFFFFFF))
    return 0
