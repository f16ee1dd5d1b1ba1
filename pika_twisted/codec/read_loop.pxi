# From what a transport read to what it is to write: the loop around the decoder.

cdef class ReadLoop:
    """The one loop that every received octet of a connection goes through. See `Inbound`."""

    cdef public FrameDecoder decoder
    #: How many octets have come.
    cdef public uint64_t octets
    #: How many frames were handed to `process()`; the decoder counts the others.
    cdef public uint64_t frames_processed
    #: Whatever still arrives is ignored.
    cdef public bint stopped
    #: So many more reads, and `on_reads()` is called, which returns the next number; 0: never.
    cdef public int reads_left
    cdef bint draining
    cdef OutputBuffer buffer
    cdef object wants_after_read

    def __init__(self, OutputBuffer buffer not None, wants_after_read):
        self.buffer = buffer
        self.wants_after_read = wants_after_read

    def receive(self, data):
        """Take what the transport read, cut anywhere, and decode all of it. Raises nothing.

        Messages of subscribed consumers are in their queues when `next_frame()` returns. Their
        waiting get()s are woken once per chunk or burst, and before any other frame is handed on,
        so that order is kept: waking for each message costs five times as much.
        """
        cdef FrameDecoder decoder = self.decoder
        cdef OutputBuffer buffer = self.buffer
        self.octets += len(data)
        if self.stopped:
            return
        if decoder is None or buffer is None:  # C would not notice
            raise AttributeError("the loop has no decoder, or its __init__() was not called")
        decoder.feed(data)
        if self.draining:  # the loop further up the stack takes it
            return
        self.draining = True
        buffer.held = buffer.can_hold
        try:
            self.drain(decoder)
        except Exception as error:
            self.end(error)
        finally:
            self.draining = buffer.held = False
            buffer.writes = 0
            if buffer.ledgers or (buffer.used and buffer.delayed):
                self.flush()
            else:
                buffer.write_out()
            if self.wants_after_read:
                self.after_read()
            if self.reads_left > 0:
                self.reads_left -= 1
                if self.reads_left == 0:
                    self.reads_left = self.on_reads()

    cdef int drain(self, FrameDecoder decoder) except -1:
        while True:
            value = decoder.next_frame()
            self.wake(decoder)
            if value is None or self.stopped:
                return 0
            if value is not False:  # False: that was a burst
                self.process(value)
                if self.stopped:
                    return 0

    cdef inline int wake(self, FrameDecoder decoder) except -1:
        if decoder.token is None:
            return 0
        token = decoder.take_token()
        if token is not None:
            token()
        else:
            for token in decoder.take_ready():
                token()
        return 0
