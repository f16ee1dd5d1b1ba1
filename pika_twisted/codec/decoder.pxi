# The decoder.

cdef str OUT_OF_MEMORY = "out of memory"
cdef str BROKEN_OFF = "decoding was broken off"

cdef enum Step:
    FRAME         # the next octet begins a frame, or lies in the one that is being carried
    BODY_PAYLOAD  # inside a body frame, whose payload goes straight to where it belongs
    BODY_END      # the end octet of that frame


@cython.final
cdef class FrameDecoder:
    """Bytes in, frames out; the messages of subscribed consumers go straight to their backlog."""

    cdef int64_t largest_frame, largest_header
    cdef uint64_t largest_message
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
    cdef object token                # of the route that got messages; None: none did
    cdef list tokens                 # of the others that got some
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
    def frame_max(self):
        """The largest frame that is taken."""
        return self.largest_frame

    @frame_max.setter
    def frame_max(self, value):
        self.largest_frame = clamped(value, LARGEST_FRAME)

    @property
    def max_header_size(self):
        """The largest header frame that is taken, where that is more."""
        return self.largest_header

    @max_header_size.setter
    def max_header_size(self, value):
        self.largest_header = clamped(value, LARGEST_FRAME)

    @property
    def max_message_size(self):
        """The longest body that is taken."""
        return self.largest_message

    @max_message_size.setter
    def max_message_size(self, value):
        self.largest_message = LARGEST_SIZE if value > LARGEST_SIZE else value

    @property
    def max_nesting(self):
        """How deep tables and arrays may lie in the outermost table."""
        return self.nesting

    @max_nesting.setter
    def max_nesting(self, int value):
        if not 0 <= value <= MAX_NESTING:
            raise ValueError(f"max_nesting must be between 0 and {MAX_NESTING}")
        self.nesting = value

    @property
    def buffered(self):
        """Octets that were fed and could not be used yet."""
        return <int64_t>self.carried + (self.end - self.at) + sum(map(len, self.later))

    @property
    def ready(self):
        """Whether take_ready() has something to give out."""
        return self.token is not None

    # -- the public calls

    cpdef feed(self, data):
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

    cpdef next_frame(self):
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
        state.subscriptions[tag] = Route(backlog, channel, token, tag)
        state.last_found = None

    def unsubscribe(self, int channel_number, consumer_tag):
        """End that. A content that has begun is still finished."""
        cdef ChannelState state = self.channels.get(channel_number)
        if state is not None:
            state.subscriptions.pop(tag_octets(consumer_tag), None)
            state.last_found = None

    def last_delivery_tag(self, int channel_number):
        """The tag of the latest message that a route of that channel got; 0: none."""
        cdef ChannelState state = self.channels.get(channel_number)
        return 0 if state is None else state.last_tag

    def collect_confirms(self, int channel_number, list confirms, token):
        """Put the Basic.Ack and Basic.Nack of that channel there; return them again with None."""
        cdef ChannelState state = self.channel_state(channel_number)
        state.confirms = confirms
        state.confirms_token = token

    cpdef list take_ready(self):
        """The tokens of those who got something since the last call, in the order they did."""
        if self.token is None:
            return []
        tokens, self.tokens = [self.token, *self.tokens], []
        self.token = None
        self.taken += 1
        return tokens

    cdef inline object take_token(self):
        """The only one of those, without a list; None when there isn't just one."""
        if self.tokens:
            return None
        token, self.token = self.token, None
        self.taken += 1
        return token

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
            if self.carried == 0:
                self.drop_large_carry()
            return False
        later, self.later = self.later, []
        self.open_chunk(b"".join(later))
        return True

    cdef void drop_large_carry(self) noexcept:
        """After a long frame that came in parts: a connection lives for months."""
        if self.carry_size > CARRY_KEPT:
            PyMem_Free(self.carry)
            self.carry = NULL
            self.carry_size = 0

    cdef int carry_up_to(self, Py_ssize_t wanted) except -1:
        """Move octets of the chunk behind those carried, until ``wanted`` are there: 1, else 0."""
        cdef Py_ssize_t count = min(wanted - self.carried, self.end - self.at)
        cdef unsigned char* bigger
        cdef Py_ssize_t size = self.carried + count
        if self.carried == 0:
            self.drop_large_carry()
        if size > self.carry_size:
            # At least doubled, so that octets are moved once on average; never more than the
            # frame, whose size is within the limit.
            size = min(wanted, max(size, doubled(self.carry_size), <Py_ssize_t>512))
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
        elif self.frame_type == BODY_FRAME and self.body_channel.forgotten:
            self.check_body()  # its channel went while the frame was carried
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
        cdef int64_t limit = self.largest_frame
        cdef int64_t size = load_u32(head + 3)
        self.frame_type = head[0]
        self.channel_number = load_u16(head + 1)
        if self.frame_type == HEADER_FRAME or self.frame_type == BODY_FRAME:
            if self.channel_number == 0:
                raise DecodeError(FRAME_ERROR, "content on channel 0")
            if self.frame_type == HEADER_FRAME and limit < self.largest_header:
                limit = self.largest_header
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
            if self.token is None:
                self.token = token
            else:
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
        cdef Route route = None
        if state is None:
            state = self.channel_state(self.channel_number)
        if index == BASIC_DELIVER:
            method = <_ContentMethod>bare_light_object(Deliver, 0)
            route = self.read_consumer_tag(state, method, cursor)
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
        state.route = route
        if route is not None:
            return None
        return self.method_frame(method)

    cdef Route read_consumer_tag(self, ChannelState state, _ContentMethod method,
                                 Cursor* cursor):
        cdef Py_ssize_t size = take(cursor, 1)[0]
        cdef octets at = take(cursor, size)
        cdef Route route = state.find(at, size)
        if route is None:
            set_text(method, 2, text_or_bytes(at, size))
        else:
            set_text(method, 2, route.tag)
        return route

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
        if body_size > self.largest_message:
            state.swallowed = True
            return OversizedContent(
                self.channel_number, state.method, body_size, self.max_message_size
            )
        properties = self.new_properties(
            state, payload + CONTENT_HEADER_SIZE, self.frame_size - CONTENT_HEADER_SIZE
        )
        if state.route is None:
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
        cdef ChannelState state = self.body_channel
        cdef bint direct = state.route is not None or state.swallowed
        state.missing -= self.frame_size
        if state.route is not None and not state.swallowed:
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
        if self.body_channel.route is None and not self.body_channel.swallowed:
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
        """A content is complete: hand it to its route, if it has one."""
        cdef Route route = state.route
        cdef uint64_t delivery_tag
        if route is not None and not state.swallowed:
            delivery_tag = (<_ContentMethod>state.method).tag
            route.backlog.push(new_message(
                self.message_class, route.channel, state.method, state.properties,
                state.take_body(),
            ))
            self.messages_direct += 1
            state.last_tag = delivery_tag
            self.report(route.token, &route.reported)
        state.end_content()
        return 0
