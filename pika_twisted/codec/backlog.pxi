# Messages that wait.

cdef enum:
    MESSAGE_ITEMS = 4  # channel, method, properties, body

cdef object new_message(object message_class, object channel, object method, object properties,
                        object body):
    """A message, made as tuple's own constructor does it: 46 ns instead of 242.

    The cyclic collector does not see it until it is handed out (``visible``): with 100,000 queued
    ones a full collection takes 15 ms instead of 184.
    """
    message = bare_object(message_class, MESSAGE_ITEMS)
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


def read_as_slots(message_class not None):
    """Let the four fields of a namedtuple's subclass be read as quickly as slots."""
    for i in range(MESSAGE_ITEMS):
        descriptor = message_item(message_class, i)
        setattr(message_class, descriptor.__name__, descriptor)
    set_message_slots(message_class, True)

    def init_subclass(cls, **options):
        set_message_slots(cls, False)  # Python has given it slots of its own
        super(message_class, cls).__init_subclass__(**options)

    message_class.__init_subclass__ = classmethod(init_subclass)


cdef inline bint looks_like_message(object item) noexcept:
    return PyTuple_Check(item) and PyTuple_GET_SIZE(item) == MESSAGE_ITEMS


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

    # A ring in a list; its size is a power of two. As long as nothing is in it but messages that
    # the cyclic collector does not see, it doesn't see a long one either: with 100,000 queued it
    # would add two thirds to a full collection.
    cdef list ring
    cdef bint shown
    cdef Py_ssize_t head, length, mask
    cdef readonly int64_t body_bytes

    def __cinit__(self, *args, **kwargs):
        self.reset()

    def __init__(self, items=()):
        for item in items:
            self.append(item)

    cdef int reset(self) except -1:
        self.ring = [None] * SMALLEST_RING
        self.shown = False
        self.mask = SMALLEST_RING - 1
        self.head = self.length = 0
        self.body_bytes = 0
        return 0

    cdef int push(self, object item) except -1:
        if self.length > self.mask:
            self.grow()
        self.ring[(self.head + self.length) & self.mask] = item
        self.length += 1
        self.body_bytes += body_size_of(item)
        return 0

    cdef int grow(self) except -1:
        cdef list ring = self.ring[self.head:] + self.ring[:self.head]
        self.ring = ring + [None] * len(ring)
        self.mask = 2 * len(ring) - 1
        self.head = 0
        if not self.shown:
            PyObject_GC_UnTrack(<PyObject*>self.ring)
        return 0

    cdef inline int show(self) except -1:
        """Let the collector see the ring: what is in it may be part of a cycle from now on."""
        if not self.shown:
            self.shown = True
            if not PyObject_GC_IsTracked(self.ring):
                PyObject_GC_Track(<PyObject*>self.ring)
        return 0

    cdef object take(self):
        item = self.ring[self.head]
        self.ring[self.head] = None
        self.head = (self.head + 1) & self.mask
        self.length -= 1
        self.body_bytes -= body_size_of(item)
        if self.length == 0 and self.mask > 1023:
            self.reset()  # what a long backlog took is given back when it has gone
        return visible(item)

    cdef inline object at(self, Py_ssize_t index):
        self.show()
        return visible(self.ring[(self.head + index) & self.mask])

    def append(self, item):
        """Add ``item`` at the end."""
        self.show()
        self.push(item)

    def popleft(self):
        """Take the oldest item; IndexError when there is none."""
        if self.length == 0:
            raise IndexError("pop from an empty backlog")
        return self.take()

    def popmany(self, Py_ssize_t count):
        """Take up to ``count`` items, the oldest first."""
        return [self.take() for _ in range(min(count, self.length))]

    def clear(self):
        """Drop everything."""
        self.reset()

    def copy(self):
        """A list of all items; they stay in the backlog."""
        cdef Py_ssize_t i
        return [self.at(i) for i in range(self.length)]

    def track(self):
        """Show all items to the cyclic collector; for a queue that ends with messages in it."""
        cdef Py_ssize_t i
        self.show()
        for i in range(self.length):
            self.at(i)

    # The rest of what a list can do. Each takes time in proportion to the length but at the ends.

    cdef int refill(self, list items) except -1:
        """Add ``items`` at the end."""
        self.show()
        for item in items:
            self.push(item)
        return 0

    def appendleft(self, item):
        """Add ``item`` at the front."""
        self.show()
        if self.length > self.mask:
            self.grow()
        self.head = (self.head - 1) & self.mask
        self.ring[self.head] = item
        self.length += 1
        self.body_bytes += body_size_of(item)

    def extend(self, items):
        """Add ``items`` at the end."""
        self.refill(list(items))

    def insert(self, Py_ssize_t index, item):
        """Add ``item`` before the one at ``index``."""
        cdef list items
        if index == 0 or index <= -self.length:
            self.appendleft(item)
        elif index >= self.length:
            self.append(item)
        else:
            items = self.copy()
            items.insert(index, item)
            self.reset()
            self.refill(items)

    def pop(self, Py_ssize_t index=-1):
        """Take the item at ``index``."""
        if index in (0, -self.length) and self.length != 0:
            return self.take()
        item = self[index]
        del self[index]
        return item

    def remove(self, item):
        """Take the first item that equals ``item``; ValueError when there is none."""
        del self[self.copy().index(item)]

    def index(self, item, *borders):
        """See list.index."""
        return self.copy().index(item, *borders)

    def count(self, item):
        """See list.count."""
        return self.copy().count(item)

    def sort(self, *, key=None, reverse=False):
        """See list.sort."""
        self[:] = sorted(self.copy(), key=key, reverse=reverse)

    def reverse(self):
        """See list.reverse."""
        self[:] = reversed(self.copy())

    def __setitem__(self, index, value):
        items = self.copy()
        items[index] = value
        self.reset()
        self.refill(items)

    def __delitem__(self, index):
        items = self.copy()
        del items[index]
        self.reset()
        self.refill(items)

    def __iadd__(self, items):
        self.extend(items)
        return self

    def __add__(self, items):
        return self.copy() + items

    def __radd__(self, items):
        return items + self.copy()

    def __len__(self):
        return self.length

    def __bool__(self):
        return self.length != 0

    def __iter__(self):
        return iter(self.copy())

    def __reversed__(self):
        return reversed(self.copy())

    def __contains__(self, item):
        return item in self.copy()

    def __getitem__(self, index):
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [self.at(i) for i in range(*index.indices(self.length))]
        i = PyNumber_AsSsize_t(index, IndexError)
        if i < 0:
            i += self.length
        if not 0 <= i < self.length:
            raise IndexError("backlog index out of range")
        return self.at(i)

    def __eq__(self, other):
        if not isinstance(other, (list, Backlog)):
            return NotImplemented
        return len(other) == self.length and self.copy() == list(other)

    def __hash__(self):
        raise TypeError(f"unhashable type: {type(self).__name__!r}")

    def __repr__(self):
        return repr(self.copy())
