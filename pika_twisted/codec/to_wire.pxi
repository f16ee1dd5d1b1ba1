# Strings, values and tables to the wire, byte for byte as `codec/to_wire.py` writes them, which
# makes the errors: texts here only have to be of the right class.

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
        raise ShortStringTooLong(f"{name}: a string of {string.size} octets, 255 is the limit")
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
        value = PyNumber_Index(value)
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
        value = PyNumber_Index(value)
    try:
        return PyLong_AsUnsignedLongLong(value)
    except OverflowError:
        raise ValueError(f"{name} must be between 0 and 2**64 - 1, not {value}") from None


cdef int begin_nested(OutputBuffer output, str name, int depth) except -1:
    if depth > MAX_NESTING:
        raise ValueError(f"{name} is nested deeper than {MAX_NESTING} levels")
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
            put_short_string(output, key, name)
            put_value(output, value, name, depth)
    elif table:
        try:
            entries = table.items()
        except AttributeError:
            raise TypeError(f"{name} must be a dict, not {type(table).__name__}") from None
        for key, value in entries:
            put_short_string(output, key, name)
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
    elif isinstance(value, float):
        put_double(output, value)
    elif value is None:
        output.room(1)[0] = c"V"
    elif isinstance(value, dict):
        output.room(1)[0] = c"F"
        put_table(output, value, name, depth + 1)
    elif isinstance(value, list):
        output.room(1)[0] = c"A"
        put_array(output, value, name, depth + 1)
    elif isinstance(value, datetime):
        put_timestamp(output, timegm(value.utctimetuple()), name)
    elif isinstance(value, Decimal):
        put_decimal(output, value)
    else:
        raise UnsupportedField(f"{name}: values of {type(value).__name__} can't be sent", value)
    return 0


cdef int put_integer(OutputBuffer output, object value, str name) except -1:
    cdef int64_t number
    cdef unsigned char* at
    if not PyLong_CheckExact(value) and isinstance(value, Timestamp):
        return put_timestamp(output, value, name)
    number = integer_of(value, name, INT64_MIN, INT64_MAX)
    if (-0x80000000 <= number <= 0x7FFFFFFF
            and (PyLong_CheckExact(value) or not isinstance(value, long_long))):
        at = output.room(5)
        at[0] = c"I"
        store_u32(at + 1, <uint32_t>number)
    else:
        at = output.room(9)
        at[0] = c"l"
        store_u64(at + 1, <uint64_t>number)
    return 0


cdef int put_double(OutputBuffer output, double value) except -1:
    cdef uint64_t bits
    cdef unsigned char* at = output.room(9)
    memcpy(&bits, &value, sizeof(bits))
    at[0] = c"d"
    store_u64(at + 1, bits)
    return 0


cdef int put_timestamp(OutputBuffer output, object seconds, str name) except -1:
    cdef uint64_t number = unsigned_of(seconds, name)
    cdef unsigned char* at = output.room(9)
    at[0] = c"T"
    store_u64(at + 1, number)
    return 0


cdef int put_decimal(OutputBuffer output, object value) except -1:
    cdef unsigned char* at
    cdef uint8_t scale
    cdef int32_t unscaled
    scale, unscaled = decimal_parts(value)
    at = output.room(6)
    at[0] = c"D"
    at[1] = scale
    store_u32(at + 2, <uint32_t>unscaled)
    return 0
