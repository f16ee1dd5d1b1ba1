# What Cython's own declarations lack.

cdef extern from *:
    """
    /* A new object as its type's own allocator makes it: zeroed, and nothing else called. */
    #define bare_object(type, items) \
        (((PyTypeObject *)(type))->tp_alloc((PyTypeObject *)(type), (items)))

    /* The same for a class that the cyclic collector has nothing to do with, in half the time. Behind
       the object there is room for so many octets of its own. */
    static inline PyObject *bare_light_object(PyObject *type, size_t octets) {
        size_t size = (size_t)((PyTypeObject *)type)->tp_basicsize;
        PyObject *o = (PyObject *)PyObject_Malloc(size + octets);
        if (o == NULL)
            return PyErr_NoMemory();
        memset(o, 0, size);
        return PyObject_Init(o, (PyTypeObject *)type);
    }
    #define own_octets(o) ((unsigned char *)(o) + Py_TYPE(o)->tp_basicsize)

    /* The end of an object that has let go of all it had. */
    #if CYTHON_USE_TYPE_SPECS
      #define free_object(o) do { PyTypeObject *t = Py_TYPE(o); t->tp_free(o); Py_DECREF(t); } while (0)
    #else
      #define free_object(o) Py_TYPE(o)->tp_free(o)
    #endif

    /* Where an object keeps its instance dict; NULL there until one is needed. */
    #define dict_slot(o) ((PyObject **)((char *)(o) + Py_TYPE(o)->tp_dictoffset))

    /* Descriptors of the items of a tuple's subclass, which the interpreter reads as it reads slots:
       3 ns, where a namedtuple's take 30. They don't look at the length: all that makes messages,
       a namedtuple's own __new__, _make and _replace included, sees to four items. */
    #include <structmember.h>
    #define MESSAGE_ITEM(name, i) {name, T_OBJECT_EX, \
        offsetof(PyTupleObject, ob_item) + (i) * sizeof(PyObject *), READONLY, \
        "Alias for field number " #i}
    static PyMemberDef message_items[] = {
        MESSAGE_ITEM("channel", 0), MESSAGE_ITEM("method", 1),
        MESSAGE_ITEM("properties", 2), MESSAGE_ITEM("body", 3),
    };
    #define message_item(type, i) PyDescr_NewMember((PyTypeObject *)(type), &message_items[i])

    /* The descriptors above read four items of any instance: one that tuple.__new__() makes shorter
       has room for four as well, and NULL there is an AttributeError. */
    static PyObject *message_alloc(PyTypeObject *type, Py_ssize_t items) {
        PyObject *o = PyType_GenericAlloc(type, items < 4 ? 4 : items);
        if (o != NULL && items < 4)
            Py_SET_SIZE(o, items);
        return o;
    }

    /* Of its own, so that `__class__` of a shorter tuple can't be set to such a class. */
    static void message_free(void *o) {
        PyObject_GC_Del(o);
    }

    /* The cyclic collector does not know method and properties: without a header of its own each
       costs half as much. What they lead to belongs to the message as long as only that has them. */
    static traverseproc light_traverse = NULL;
    #define set_light_traverse(function) (light_traverse = (traverseproc)(function))

    static int message_traverse(PyObject *o, visitproc visit, void *arg) {
        Py_ssize_t i, items = PyTuple_GET_SIZE(o);
        int result = PyTuple_Type.tp_traverse(o, visit, arg);
        if (result)
            return result;
        Py_VISIT(Py_TYPE(o));
        for (i = 1; i < items && i < 3; i++) {
            PyObject *part = PyTuple_GET_ITEM(o, i);
            if (part != NULL && Py_REFCNT(part) == 1 && !PyObject_IS_GC(part)) {
                result = light_traverse(part, visit, arg);
                if (result)
                    return result;
            }
        }
        return 0;
    }

    static void set_message_slots(PyObject *type, int is_root) {
        ((PyTypeObject *)type)->tp_alloc = message_alloc;
        ((PyTypeObject *)type)->tp_free = message_free;
        if (is_root && ((PyTypeObject *)type)->tp_dictoffset == 0)
            ((PyTypeObject *)type)->tp_traverse = message_traverse;  /* a subclass calls its base's */
    }

    /* CPython 3.14 caches a tuple's hash; tuple's own constructor marks it as not known yet. */
    #if PY_VERSION_HEX >= 0x030E0000
      #define forget_hash(o) (((PyTupleObject *)(o))->ob_hash = -1)
    #else
      #define forget_hash(o) ((void)(o))
    #endif

    /* A string as pika gives it: bytes where the octets are no UTF-8. */
    static PyObject *text_or_bytes(const unsigned char *at, Py_ssize_t size) {
        PyObject *text = PyUnicode_DecodeUTF8((const char *)at, size, NULL);
        if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            PyErr_Clear();
            return PyBytes_FromStringAndSize((const char *)at, size);
        }
        return text;
    }

    #ifdef Py_GIL_DISABLED
      #define HAS_GIL 0
    #else
      #define HAS_GIL 1
    #endif

    #define is_plain_tuple(o) (Py_TYPE(o) == &PyTuple_Type)
    #define is_short_ascii(o) (PyUnicode_CheckExact(o) && PyUnicode_IS_COMPACT_ASCII(o))
    """
    object bare_object(object type, Py_ssize_t items)
    object bare_light_object(object type, size_t octets)
    unsigned char* own_octets(object o)
    PyObject** dict_slot(PyObject* o)
    void free_object(PyObject* o)
    object message_item(object type, int i)
    void set_message_slots(object type, bint is_root)
    void set_light_traverse(void* function)
    void forget_hash(object o)
    object text_or_bytes(const unsigned char* at, Py_ssize_t size)
    const bint HAS_GIL
    bint is_plain_tuple(object o)
    bint is_short_ascii(object o)

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    PyObject* PyBytes_FromStringAndSize_raw "PyBytes_FromStringAndSize" (
        const char*, Py_ssize_t) except NULL
    int _PyBytes_Resize(PyObject**, Py_ssize_t) except -1
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    void* PyUnicode_DATA(object)
    PyObject* PyDict_GetItemWithError(object, object) except? NULL
    object PyObject_GenericGetAttr(PyObject*, PyObject*)
    object PyObject_GenericGetDict(object, void*)
    int PyObject_GenericSetDict(object, object, void*) except -1
    unsigned long long PyLong_AsUnsignedLongLong(object) except? 0xFFFFFFFFFFFFFFFF
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    bint PyTuple_Check(object)
    Py_ssize_t PyTuple_GET_SIZE(object)
    PyObject* PyTuple_GET_ITEM_raw "PyTuple_GET_ITEM" (object, Py_ssize_t)
    bint PyBytes_CheckExact_raw "PyBytes_CheckExact" (PyObject*)
    Py_ssize_t PyBytes_GET_SIZE_raw "PyBytes_GET_SIZE" (PyObject*)
    bint PyObject_GC_IsTracked(object)
    void PyObject_GC_Track(PyObject*)
    void PyObject_GC_UnTrack(PyObject*)
    ctypedef object (*get_attribute "getattrofunc")(PyObject*, PyObject*)
    ctypedef void (*destructor)(PyObject*) noexcept
    ctypedef struct PyTypeObject:
        PyObject* tp_dict
        destructor tp_dealloc
        get_attribute tp_getattro
    PyTypeObject* Py_TYPE(PyObject*)
    void PyType_Modified(PyTypeObject*)
    bint PyObject_TypeCheck(PyObject*, PyTypeObject*)
