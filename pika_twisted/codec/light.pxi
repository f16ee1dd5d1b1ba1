# Light objects: equal to pika's, but a fraction of their cost.
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


@cython.no_gc
cdef class _RawProperties(_Light):
    """The octets of a message's properties, decoded when one of them is touched: 0.8 us saved."""

    # bytes that several messages share, or NULL: it has ``number`` octets of its own, right behind
    # it, which saves 32 bytes and an allocation; or none, where a caller made it.
    cdef PyObject* raw_octets
    # NULL, or the 14 properties once they are decoded, and behind them why some can't be (str or
    # NULL). A property that is NULL is absent, or behind what can't be decoded: see property_at().
    cdef PyObject** values

    @property
    def raw(self):
        """The octets the properties came in; None where they came from no peer."""
        if self.raw_octets is not NULL:
            return <object>self.raw_octets
        if self.number == 0:
            return None
        return PyBytes_FromStringAndSize(<const char*>own_octets(self), self.number)

    def __reduce__(self):
        # Undecoded until a property is read: pickling raises no decoding error.
        raw = self.raw
        looked = raw is None or self.values is not NULL or dict_slot(<PyObject*>self)[0] is not NULL
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
        cdef PyObject* value = property_at(decoded(properties), self.slot)
        if value is NULL:
            raise_missing(properties, self.__name__)
        return <object>value


cdef object from_dict(_Light light, _Field field):
    cdef PyObject* value = PyDict_GetItemWithError(own_dict(light), field.__name__)
    if value is NULL:
        raise_missing(light, field.__name__)
    return <object>value


cdef inline PyObject* property_at(PyObject** values, int slot) noexcept:
    """A decoded property, None where it is absent; NULL where it can't be decoded."""
    if values[slot] is not NULL:
        return values[slot]
    return <PyObject*>None if values[PROPERTY_COUNT] is NULL else NULL


cdef inline object method_field(_ContentMethod method, _MethodField field):
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
    return <dict><object>dict_slot(<PyObject*>light)[0]


cdef int fill_dict(_Light light) except -1:
    cdef dict fields = PyObject_GenericGetDict(light, NULL)
    cdef PyObject** values
    cdef _MethodField field
    if isinstance(light, _RawProperties):
        values = decoded(<_RawProperties>light)
        for i in range(PROPERTY_COUNT):
            if property_at(values, i) is not NULL:
                fields[PROPERTY_NAMES[i]] = <object>property_at(values, i)
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
    cdef int slot = 0
    if values is NULL:
        raise MemoryError
    try:
        read_properties(light, values, &slot)
    except FieldError as error:
        values[PROPERTY_COUNT] = new_reference(str(error))
        while slot > 0:
            slot -= 1
            if values[slot] is NULL:
                values[slot] = new_reference(None)
    except BaseException:
        free_values(values)
        raise
    light.values = values
    return values


cdef int read_properties(_RawProperties light, PyObject** values, int* slot) except -1:
    """Fill in ``values``; after an error ``slot`` is the place of what can't be decoded."""
    cdef octets types = <octets>PyBytes_AS_STRING(PROPERTY_TYPES)
    cdef unsigned int flags = 0  # the one of the property at ``slot`` is 0x8000
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
    flags &= 0xFFFC
    while flags != 0:
        if flags & 0x8000:
            value = read_argument(types[slot[0]], &cursor, light.nesting)
            values[slot[0]] = new_reference(value)
        flags = (flags << 1) & 0xFFFF
        slot[0] += 1
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


# A class of C's may put functions of its own in the place of Cython's and Python's.
#
# Cython's deallocators put the current exception aside in each class of the hierarchy, and they
# empty the instance dict, to which a program may hold a reference (vars(message.method), say).
# Without both a message costs 0.03 us less. In them ``this`` has no references left: a variable of
# an object's type would take one, and free it again.

cdef void free_light(PyObject* this) noexcept:
    Py_XDECREF(dict_slot(this)[0])
    free_object(this)


ctypedef int (*visitor)(PyObject*, void*) noexcept


cdef int traverse_light(PyObject* this, visitor visit, void* argument) noexcept:
    """Show the cyclic collector what a user may have put there."""
    cdef PyObject** values
    cdef int i, result = 0
    if not PyObject_TypeCheck(this, <PyTypeObject*>_Light):
        return 0
    if dict_slot(this)[0] is not NULL:
        result = visit(dict_slot(this)[0], argument)
    if result == 0 and PyObject_TypeCheck(this, <PyTypeObject*>_RawProperties):
        values = (<_RawProperties>this).values
        if values is not NULL:
            for i in range(PROPERTY_COUNT):
                if result == 0 and values[i] is not NULL:
                    result = visit(values[i], argument)
    return result


set_light_traverse(<void*>traverse_light)


cdef void free_method(PyObject* this) noexcept:
    cdef int i
    for i in range(3):
        Py_XDECREF((<_ContentMethod>this).text[i])
    free_light(this)


cdef void free_properties(PyObject* this) noexcept:
    Py_XDECREF((<_RawProperties>this).raw_octets)
    free_values((<_RawProperties>this).values)
    free_light(this)


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


cdef object get_property(PyObject* this, PyObject* name):
    """An attribute of BasicProperties; with one look where it is a property."""
    cdef PyObject* field
    cdef PyObject* value
    if not (<_Light>this).in_dict and Py_TYPE(this) is <PyTypeObject*>BasicProperties:
        field = place_of(property_names, name).field
        if field is not NULL:
            value = property_at(decoded(<_RawProperties>this), (<_Field>field).slot)
            if value is not NULL:
                return <object>value
    return PyObject_GenericGetAttr(this, name)


cdef object get_argument(PyObject* this, PyObject* name):
    """An attribute of Deliver; with one look where it is an argument."""
    cdef PyObject* field
    if not (<_Light>this).in_dict and Py_TYPE(this) is <PyTypeObject*>Deliver:
        field = place_of(argument_names, name).field
        if field is not NULL:
            return method_field(<_ContentMethod>this, <_MethodField>field)
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


for light_class in (_ContentMethod, Deliver, GetOk, Return):
    (<PyTypeObject*>light_class).tp_dealloc = free_method
for light_class in (_RawProperties, BasicProperties):
    (<PyTypeObject*>light_class).tp_dealloc = free_properties
(<PyTypeObject*>_Light).tp_dealloc = free_light
shorten(Deliver, argument_names, get_argument)
shorten(BasicProperties, property_names, get_property)


cdef inline int set_text(_ContentMethod method, int slot, object text) except -1:
    method.text[slot] = new_reference(text)
    return 0
