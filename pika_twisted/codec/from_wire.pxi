# Strings, values and tables from the wire.

cdef object long_long = LongLong
cdef object as_timestamp = timestamp_of
cdef object as_decimal = decimal_of


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
cdef PyObject* last_table = NULL  # a dict with no other reference; NULL: seen once, or not flat


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
        return as_timestamp(load_u64(take(cursor, 8)))
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
        return as_decimal(size, <int>load_u32(take(cursor, 4)))
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
