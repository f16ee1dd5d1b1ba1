# Calls to bytes.

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

    #: Whether what is encoded may wait until the buffer is full.
    cdef public bint held
    #: Whether anything may wait at all: only where the transport flushes us before it ends.
    cdef public bint can_hold
    #: How many writes of this turn of the reactor went out at the call.
    cdef public uint32_t writes
    #: Ledgers that hold acks back until the turn ends, and those that may hold them longer: until
    #: anything is written. The connection has them encode their acks first.
    cdef public list ledgers, delayed
    #: Where `write()` writes; None: nowhere.
    cdef public object transport
    cdef readonly Py_ssize_t limit
    cdef readonly uint64_t frames
    cdef public uint64_t bytes_written, frames_written
    cdef Py_ssize_t largest_frame
    cdef PyObject* octets          # bytes in the making, with no other reference; NULL: no room
    cdef Py_ssize_t used, size
    cdef uint64_t frames_taken
    cdef Py_ssize_t expected       # octets that go at a time, when it is many of them
    cdef bint busy                 # a call is being encoded

    def __cinit__(self, *, frame_max=131072, limit=65536):
        self.frame_max = frame_max
        self.limit = <Py_ssize_t>clamped(limit, LARGEST_SIZE // 2)
        self.ledgers = []
        self.delayed = []

    def __dealloc__(self):
        Py_XDECREF(self.octets)

    @property
    def frame_max(self):
        """The largest frame the peer takes; bodies are cut to fit."""
        return self.largest_frame

    @frame_max.setter
    def frame_max(self, value):
        if value <= FRAME_OVERHEAD:
            raise ValueError(f"frame_max must be more than {FRAME_OVERHEAD}, not {value}")
        self.largest_frame = <Py_ssize_t>clamped(value, LARGEST_FRAME)

    def __len__(self):
        return self.used

    cpdef write_out(self):
        """Write everything that was encoded."""
        cdef uint64_t frames = self.frames - self.frames_taken
        if self.used:
            self.write(self.take(), frames)

    cpdef write(self, bytes octets, uint64_t frames):
        """Write so many frames that are encoded already."""
        if octets is None:  # whose size C would make up
            raise TypeError("octets must be bytes, not None")
        self.bytes_written += PyBytes_GET_SIZE(octets)
        self.frames_written += frames
        if self.transport is not None:
            self.transport.write(octets)

    cpdef bytes take(self):
        """Everything that was encoded; the buffer is empty then."""
        cdef PyObject* octets
        cdef Py_ssize_t used
        self.check_idle()
        self.frames_taken = self.frames
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
        cdef Py_ssize_t size
        cdef PyObject* bigger
        if count > LARGEST_SIZE - self.used:
            raise MemoryError(f"the output buffer can't hold {self.used} and {count} bytes")
        size = max(
            self.used + count, doubled(self.size), self.expected + self.expected // 16,
            <Py_ssize_t>FIRST_ROOM
        )
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

    cdef inline int check_header(self, Py_ssize_t size) except -1:
        """A header frame can't be cut, and for a longer one brokers close the connection (501)."""
        if size + FRAME_OVERHEAD > max(self.largest_frame, FRAME_MIN_SIZE):
            raise ValueError(
                f"properties: a header frame of {size + FRAME_OVERHEAD} octets, "
                f"frame_max is {self.largest_frame}"
            )
        return 0

    cdef int bodies(self, int channel, octets at, Py_ssize_t size) except -1:
        """The body, in frames of at most frame_max octets."""
        cdef Py_ssize_t step = self.largest_frame - FRAME_OVERHEAD
        cdef Py_ssize_t count
        cdef int64_t all_frames
        if size > step:
            # All the room at once: growing bit by bit would move a large body's frames again.
            all_frames = size + (<int64_t>(size // step) + 1) * FRAME_OVERHEAD
            if all_frames > LARGEST_SIZE:
                raise MemoryError(f"no buffer can hold the {all_frames} bytes of the body's frames")
            self.room(<Py_ssize_t>all_frames)
            self.used -= <Py_ssize_t>all_frames
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
    #: A ledger looks at every ack: slow_ack() does all that then.
    cdef public bint has_ledger
    #: The channel's own methods, for all that is rare.
    cdef public object slow_ack, slow_publish
    #: Makes the result of basic_publish(); with the arguments in confirm mode, None in any other.
    cdef public object succeeded, expect
    #: The encoded properties of the latest mandatory publish, which its return is known by.
    cdef readonly bytes sent_properties

    def __cinit__(self, OutputBuffer output not None, int number):
        if not 0 <= number <= 0xFFFF:
            raise ValueError(f"channel numbers are 0 to 65535, not {number}")
        self.output = output
        self.number = number
        self.open = True

    def ack(self, delivery_tag=0, multiple=False):
        """Basic.Ack."""
        return self.tag_frame(BASIC_ACK, delivery_tag, 1 if multiple else 0)

    def basic_ack(self, delivery_tag=0, multiple=False):
        """All that the channel's method of this name does, unless there is a ledger."""
        if self.has_ledger:
            self.slow_ack(delivery_tag, multiple)
        elif self.tag_frame(BASIC_ACK, delivery_tag, 1 if multiple else 0):
            self.flush()

    def nack(self, delivery_tag=0, multiple=False, requeue=True):
        """Basic.Nack."""
        return self.tag_frame(
            BASIC_NACK, delivery_tag, (1 if multiple else 0) | (2 if requeue else 0)
        )

    def reject(self, delivery_tag, requeue=True):
        """Basic.Reject."""
        return self.tag_frame(BASIC_REJECT, delivery_tag, 1 if requeue else 0)

    cdef object tag_frame(self, uint32_t index, delivery_tag, int bits):
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
        elif mandatory:
            result = self.expect(exchange, routing_key, body, True, self.sent_properties)
        else:
            result = self.expect(exchange, routing_key, body)
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
        except BaseException as error:
            output.used = used
            output.frames = frames
            if properties is not None and isinstance(error, (TypeError, ValueError, AMQPError)):
                output.busy = False
                encode_properties(properties)  # raises the same, and says where
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
        cdef Py_ssize_t begin
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
            output.check_header(CONTENT_HEADER_SIZE + PyBytes_GET_SIZE(encoded))
            at = output.frame(
                HEADER_FRAME, self.number, CONTENT_HEADER_SIZE + PyBytes_GET_SIZE(encoded)
            )
            memcpy(at + CONTENT_HEADER_SIZE, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
            store_content_header(at, body_size)
        else:
            begin = output.used + HEAD_SIZE + CONTENT_HEADER_SIZE
            self.header_frame(properties, body_size)
            if mandatory:
                encoded = PyBytes_FromStringAndSize(
                    PyBytes_AS_STRING(<object>output.octets) + begin, output.used - 1 - begin
                )
        self.sent_properties = encoded
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
        output.check_header(size)
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
