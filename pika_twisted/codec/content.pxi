# Content: a method, its header, its body, and what is known of the channel they come on.

@cython.final
cdef class Route:
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
    cdef dict subscriptions       # consumer tag as bytes -> Route
    cdef Route last_found
    cdef bint forgotten

    cdef Awaited awaited
    cdef Route route  # of the content; None: its frames are returned one by one
    cdef bint swallowed             # oversized: its body is read over
    cdef object method
    cdef object properties
    cdef uint64_t last_tag          # of the latest message that a route got
    cdef uint64_t body_size, missing
    cdef PyObject* body             # bytes in the making, with no other reference
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

    cdef Route find(self, octets tag, Py_ssize_t size):
        cdef Route last = self.last_found
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
        cdef Py_ssize_t room = max(<Py_ssize_t>PREALLOCATE_MAX, doubled(self.allocated), needed)
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
        self.route = None
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
