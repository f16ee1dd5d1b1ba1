# Constants of the protocol.

cdef enum:
    METHOD_FRAME = 1
    HEADER_FRAME = 2
    BODY_FRAME = 3
    HEARTBEAT_FRAME = 8
    FRAME_END = 0xCE
    FRAME_MIN_SIZE = 4096     # no frame_max is below it
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
    # A partial frame's buffer is kept for the next one unless it has grown beyond this.
    CARRY_KEPT = 256 << 10
    # An output buffer is handed over as it is from this size on; below, copying is cheaper than
    # allocating a new one.
    HAND_OVER = 4096
    FIRST_ROOM = 1024
    # Tables in tables, at most, in both directions; the stack of a thread is finite.
    MAX_NESTING = 1000


# Sizes on the wire have 32 bits, or 64; what can be held here has 31 where a pointer has 32. Limits
# are clamped to that, so that a size within them can be added to what belongs around it: frame,
# object header, the octets of a short string.
cdef Py_ssize_t LARGEST_SIZE = PY_SSIZE_T_MAX - 1024
cdef int64_t LARGEST_FRAME = min(<int64_t>LARGEST_SIZE, <int64_t>0xFFFFFFFF + FRAME_OVERHEAD)


cdef inline Py_ssize_t doubled(Py_ssize_t size) noexcept nogil:
    return 2 * size if size < LARGEST_SIZE // 2 else LARGEST_SIZE


cdef int64_t clamped(object limit, int64_t largest) except? -1:
    """A limit that can't overflow; negative ones stay, and let nothing through."""
    return largest if limit > largest else limit
