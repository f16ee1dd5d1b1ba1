# The checked cursor.

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
