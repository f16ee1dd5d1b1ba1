# cython: language_level=3, binding=False, freethreading_compatible=True
"""Deferreds that become stock ones when they are first looked at.

Most Deferreds of a consumer or publisher are awaited, and nothing else. A stock one costs 0.4 us to
make, fire and await when its value is there already, and 3 us when that comes later. These keep
what they are in C fields and answer from there `await` and the one callback by which coroutines and
inlineCallbacks wait: 0.1 and 1 us. Touched in any other way (an attribute read or set, a method
called) one first "materialises": it becomes what a stock Deferred would be at that moment, built
with Twisted's public methods, and is one from then on. Materialising costs 0.3 us.
"""

cimport cython
from cpython.object cimport (
    PyObject, PyObject_GenericGetAttr, PyObject_GenericSetAttr, PyTypeObject
)
from cpython.ref cimport Py_DECREF, Py_INCREF

from collections import OrderedDict

from twisted.internet.defer import Deferred, QueueUnderflow
from twisted.python.failure import Failure

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject **result) except PYGEN_ERROR
    object PyObject_Vectorcall(object function, PyObject **args, size_t count, PyObject *names)
    PyObject *PyTuple_GET_ITEM(object values, Py_ssize_t index)
    tuple PyTuple_New(Py_ssize_t size)
    void PyTuple_SET_ITEM(object values, Py_ssize_t index, object value)
    bint PyFunction_Check(object function)
    PyObject *PyFunction_GET_CODE(object function)

ctypedef PySendResult (*send_function)(object, object, PyObject **) except PYGEN_ERROR

cdef extern from *:
    """
    /* What CPython 3.12 and later ask instead of am_send. In C, as Cython adds a traceback to what it
       raises: `await` costs 0.4 us less. NULL without an exception is a StopIteration of None. */
    static PyObject *pt_next(PyObject *self) {
        PyObject *result = NULL, *stop;
        PySendResult status = Py_TYPE(self)->tp_as_async->am_send(self, Py_None, &result);
        if (status != PYGEN_RETURN)
            return result;
        if (result != Py_None && (stop = PyObject_CallOneArg(PyExc_StopIteration, result))) {
    #if PY_VERSION_HEX >= 0x030C0000
            PyErr_SetRaisedException(stop);
    #else
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
    #endif
        }
        Py_DECREF(result);
        return NULL;
    }

    /* Cython has no name for the slot am_send. With it `await` gets a value without a StopIteration:
       0.05 instead of 0.25 us. */
    static void pt_set_send(PyObject *cls, void *function) {
        ((PyTypeObject *)cls)->tp_as_async->am_send = (sendfunc)function;
        ((PyTypeObject *)cls)->tp_iternext = pt_next;
    }

    static void pt_set_slots(PyObject *cls, void *get, void *set, void *await) {
        PyTypeObject *type = (PyTypeObject *)cls;
        type->tp_getattro = (getattrofunc)get;
        type->tp_setattro = (setattrofunc)set;
        type->tp_as_async->am_await = (unaryfunc)await;
    }

    static int pt_has_slot(PyObject *value, void *get) {
        return Py_TYPE(value)->tp_getattro == (getattrofunc)get;
    }

    /* cls.__new__(cls) without looking anything up. */
    static PyObject *pt_new(PyObject *cls, PyObject *no_args) {
        return ((PyTypeObject *)cls)->tp_new((PyTypeObject *)cls, no_args, NULL);
    }

    static int pt_setattr(PyObject *this, PyObject *name, PyObject *value) {
        return PyObject_GenericSetAttr(this, name, value);  /* value NULL: delete */
    }

    /* Deferred.debug, where setDebugging() leaves its word. Asking the class looks through all of its
       bases, 300 of the 2,500 instructions of a publish; asking its own dict is 110. A class gets
       another version when it changes, and has none (0) until something is looked up in it. */
    static int pt_debugging(PyTypeObject *deferred, PyObject *name) {
    #ifndef Py_GIL_DISABLED
        static unsigned int version = 0;
        static int known = 0;
        if (version != 0 && version == deferred->tp_version_tag)
            return known;
    #endif
        PyObject *value = PyDict_GetItemWithError(deferred->tp_dict, name);
        int debug = value != NULL ? PyObject_IsTrue(value) : PyErr_Occurred() ? -1 : 0;
    #ifndef Py_GIL_DISABLED
        version = debug < 0 ? 0 : deferred->tp_version_tag;
        known = debug;
    #endif
        return debug;
    }

    /* A bound addBoth. Found as other methods are, through the type and a descriptor, it cost 400 of
       the 10,800 instructions of a message that was waited for. */
    static PyMethodDef pt_add_both = {"addBoth", NULL, METH_FASTCALL | METH_KEYWORDS, NULL};
    static void pt_set_add_both(void *function) {
        pt_add_both.ml_meth = (PyCFunction)function;
    }
    #define pt_bound_add_both(self) PyCFunction_NewEx(&pt_add_both, self, NULL)

    #include <structmember.h>

    /* get() of a queue's class, which has its Line in a slot: at a fixed place. As a method in Python,
       or as an attribute of each queue, it cost 0.05 us more. */
    #define GET_DOC "get($self, /)\\n--\\n\\nA Deferred of the next message. Fails at once with the " \
        "reason when the queue is closed.\\n\\nQueueUnderflow when `backlog` Deferreds wait already."
    static struct {Py_ssize_t place; PyTypeObject *type; PyObject *(*get)(PyObject *line);} pt_line;

    static PyObject *pt_queue_get(PyObject *queue, PyObject *nothing) {
        PyObject *line = *(PyObject **)((char *)queue + pt_line.place);
        if (line == NULL || !PyObject_TypeCheck(line, pt_line.type)) {
            PyErr_SetString(PyExc_AttributeError, "the queue's __init__() was not called");
            return NULL;
        }
        return pt_line.get(line);
    }

    static PyMethodDef pt_get = {"get", pt_queue_get, METH_NOARGS, GET_DOC};

    static PyObject *pt_get_of(PyObject *queue_class, PyObject *slot, PyObject *type, void *get) {
        if (!PyObject_TypeCheck(slot, &PyMemberDescr_Type))
            return PyErr_Format(PyExc_TypeError, "%R is no slot", slot);
        pt_line.place = ((PyMemberDescrObject *)slot)->d_member->offset;
        pt_line.type = (PyTypeObject *)type;
        pt_line.get = (PyObject *(*)(PyObject *))get;
        return PyDescr_NewMethod((PyTypeObject *)queue_class, &pt_get);
    }

    /* Messages are tuples, which no Failure is: the first look is enough for them. */
    static int pt_is_failure(PyObject *value, PyObject *cls) {
        return !PyTuple_Check(value) && PyObject_TypeCheck(value, (PyTypeObject *)cls);
    }
    """
    void pt_set_send(object cls, void *function)
    void pt_set_slots(object cls, void *get, void *set, void *await_)
    bint pt_has_slot(object value, void *get)
    object pt_new(object cls, object no_args)
    int pt_setattr(object this, object name, PyObject *value) except -1
    bint pt_debugging(PyTypeObject *deferred, object name) except -1
    void pt_set_add_both(void *function)
    object pt_bound_add_both(object self)
    object pt_get_of(object queue_class, object slot, object line_class, void *get)
    bint pt_is_failure(object value, object cls)


# What a Deferred with these fields is.
cdef enum State:
    STOCK       # a stock Deferred; 0: what a new one is
    READY       # it has its value, and no callbacks to come
    WAITING     # it has none yet, and no callbacks
    DRIVEN      # it has none yet; a coroutine or inlineCallbacks waits
    RUNNING     # the coroutine goes on with the value

cdef tuple NO_ARGS = ()
cdef object stock_init = Deferred.__init__
cdef object stock_callback = Deferred.callback
cdef object stock_add_callbacks = Deferred.addCallbacks

cdef object failure_class = Failure
cdef PyTypeObject *deferred_class = <PyTypeObject *>Deferred

cdef object driver_code = None


def set_driver(code):
    """Tell the code of what inlineCallbacks and coroutines hand to `addBoth`; None: unknown."""
    global driver_code
    driver_code = code


cdef inline bint is_driver(object callback):
    return PyFunction_Check(callback) and PyFunction_GET_CODE(callback) == <PyObject *>driver_code


cdef class DeferredFields:
    """First base of the two classes of a Deferred, untouched and stock. See `make_lazy`."""

    cdef State state
    cdef object value           # READY, RUNNING: the result
    cdef object driver          # DRIVEN: to be called is driver(value, *args)
    cdef tuple args
    cdef _Successor successor   # RUNNING when it was materialised: gives the driver's outcome
    # The Turns of a queue's Deferreds, or None. Both survive materialising.
    cdef public object _turns
    cdef public bint _many      # what it gives is a list of messages


def make_lazy(untouched, stock):
    """Make `untouched` the class of what becomes an instance of `stock` when it is touched.

    Both have the same bases: DeferredFields, and Deferred or a subclass of it.
    """
    pt_set_slots(untouched, <void *>lazy_getattr, <void *>lazy_setattr, <void *>lazy_await)
    untouched._stock_class = stock


cdef object lazy_getattr(object this, object name):
    if name == "addBoth":
        return pt_bound_add_both(this)
    if name == "__class__":
        return type(this)._stock_class
    materialise(<DeferredFields>this)
    return PyObject_GenericGetAttr(this, name)


cdef object lazy_add_both(object this, PyObject **given, Py_ssize_t count, PyObject *names):
    """See twisted.internet.defer.Deferred.addBoth: what coroutines and inlineCallbacks call."""
    cdef DeferredFields self = <DeferredFields>this
    if names is NULL and count > 0 and is_driver(<object>given[0]):
        if self.state == WAITING:
            self.driver = <object>given[0]
            self.args = tuple_of(given + 1, count - 1)
            self.state = DRIVEN
            return this
        if self.state == READY:
            run_driver(self, <object>given[0], tuple_of(given + 1, count - 1))
            return this
    materialise(self)
    return PyObject_Vectorcall(this.addBoth, given, count, names)


cdef tuple tuple_of(PyObject **items, Py_ssize_t count):
    cdef Py_ssize_t index
    result = PyTuple_New(count)
    for index in range(count):
        Py_INCREF(<object>items[index])
        PyTuple_SET_ITEM(result, index, <object>items[index])
    return result


cdef int lazy_setattr(object this, object name, PyObject *value) except -1:
    materialise(<DeferredFields>this)
    return pt_setattr(this, name, value)


cdef object lazy_await(object this):
    cdef _Awaiter awaiter = _Awaiter.__new__(_Awaiter)
    awaiter.deferred = <DeferredFields>this
    return awaiter


@cython.final
cdef class _Successor:
    """First callback of what materialised while the driver ran: hands on the driver's outcome."""

    cdef object outcome

    def __call__(self, result):
        return self.outcome


cdef int materialise(DeferredFields self) except -1:
    """Become the stock Deferred that this one stands for."""
    cdef State state = self.state
    if state == STOCK:
        # Made by calling the class, it is a stock one whose class is still to be set.
        if pt_has_slot(self, <void *>lazy_getattr):
            PyObject_GenericSetAttr(self, "__class__", type(self)._stock_class)
        return 0
    value, driver, args = self.value, self.driver, self.args
    self.value = self.driver = self.args = None
    self.state = STOCK
    # Another class, not a check in each attribute access: that costs 1 us per Deferred.
    PyObject_GenericSetAttr(self, "__class__", type(self)._stock_class)
    waits = state == WAITING or state == DRIVEN
    stock_init(self, self._turns.forget if waits and self._turns is not None else None)
    if state == READY:
        stock_callback(self, value)
    elif state == DRIVEN:
        self.addBoth(driver, *args)
    elif state == RUNNING:
        # It has its value, but what is added now is to run when the driver has returned.
        self.successor = _Successor.__new__(_Successor)
        stock_add_callbacks(self, self.successor, self.successor)
        self.pause()
        stock_callback(self, value)
    return 0


cdef int run_driver(DeferredFields self, object driver, tuple args) except -1:
    """Let the coroutine go on with the value. As with any callback what it returns is the result."""
    cdef PyObject *stack[8]
    cdef Py_ssize_t index, count = len(args)
    cdef _Successor successor
    value = self.value
    self.state = RUNNING
    try:
        if count < 8:
            stack[0] = <PyObject *>value
            for index in range(count):
                stack[index + 1] = PyTuple_GET_ITEM(args, index)
            outcome = PyObject_Vectorcall(driver, stack, count + 1, NULL)
        else:
            outcome = driver(value, *args)
    except BaseException:
        outcome = Failure()
    if self.state == RUNNING and outcome is None:
        self.value = None
        self.state = READY
        return 0
    materialise(self)
    successor, self.successor = self.successor, None
    successor.outcome = outcome
    self.unpause()
    return 0


@cython.final
@cython.freelist(16)
cdef class _Awaiter:
    """What `await` iterates over."""

    cdef DeferredFields deferred
    cdef object stock       # the iterator of the stock Deferred that it became meanwhile

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def throw(self, kind, value=None, traceback=None):
        """End the wait: the Deferred has failed, or an asyncio task was cancelled.

        Then a message that has come was handed to no consumer.
        """
        if self.deferred._turns is not None:
            self.deferred.give_back()
        if value is None:
            value = kind
        raise value

    def send(self, value):
        """One step, as a generator's. Called where am_send is not: by Python 3.10's tracing, say."""
        cdef PyObject *result = NULL
        cdef PySendResult status = awaiter_send(self, value, &result)
        outcome = steal(result)
        if status == PYGEN_RETURN:
            raise StopIteration(outcome)
        return outcome


cdef PySendResult awaiter_send(object this, object value, PyObject **result) except PYGEN_ERROR:
    cdef _Awaiter self = <_Awaiter>this
    cdef DeferredFields deferred = self.deferred
    if deferred.state == READY or deferred.state == RUNNING:
        Py_INCREF(deferred.value)
        result[0] = <PyObject *>deferred.value
        return PYGEN_RETURN
    if deferred.state != STOCK:
        Py_INCREF(deferred)
        result[0] = <PyObject *>deferred
        return PYGEN_NEXT
    if self.stock is None:
        self.stock = type(deferred).__await__(deferred)
    return PyIter_Send(self.stock, None, result)


@cython.final
@cython.freelist(16)
cdef class Ready:
    """An awaitable that has its value: all that `__anext__` needs when a message is there."""

    cdef object value

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration(self.value)

    def send(self, value):
        """As a generator's that returns at once."""
        raise StopIteration(self.value)


cdef PySendResult ready_send(object this, object value, PyObject **result) except PYGEN_ERROR:
    cdef Ready self = <Ready>this
    Py_INCREF(self.value)
    result[0] = <PyObject *>self.value
    return PYGEN_RETURN


cdef inline object steal(PyObject *owned):
    """The object, with the reference that `owned` holds."""
    value = <object>owned
    Py_DECREF(value)
    return value


@cython.final
cdef class _Messages:
    """What `async for` iterates with: `__anext__` without a Python frame while messages are there."""

    cdef object queue
    cdef Line line

    def __aiter__(self):
        return self

    def __anext__(self):
        cdef Ready awaitable
        cdef Line line = self.line
        if len(line.pending) == 0 or line.oldest is not None or line.closed is not None:
            return self.queue.__anext__()
        awaitable = Ready.__new__(Ready)
        awaitable.value = line.popleft()
        return awaitable


def iterate(queue):
    """An asynchronous iterator over a queue whose `__anext__` is not overridden."""
    cdef _Messages messages = _Messages.__new__(_Messages)
    messages.queue = queue
    messages.line = queue._turns
    return messages


pt_set_add_both(<void *>lazy_add_both)
pt_set_send(_Awaiter, <void *>awaiter_send)
pt_set_send(Ready, <void *>ready_send)


cdef inline bint debugging() except -1:
    return pt_debugging(deferred_class, "debug")


cdef object make_stock(object untouched, object turns, bint waits):
    if turns is None:
        return untouched._stock_class()
    return untouched._stock_class(turns, turns.forget if waits else None)


def ready_next(value):
    """An awaitable that gives `value`. It is no Deferred."""
    cdef Ready awaitable = Ready.__new__(Ready)
    awaitable.value = value
    return awaitable


cpdef ready(untouched, turns, value):
    """A Deferred that has its value."""
    cdef DeferredFields deferred
    # A stock one remembers where it was made when debugging is on, and fails with a Failure.
    if debugging() or pt_is_failure(value, failure_class):
        stock = make_stock(untouched, turns, False)
        stock.callback(value)
        return stock
    deferred = <DeferredFields>pt_new(untouched, NO_ARGS)
    deferred._turns = turns
    deferred.value = value
    deferred.state = READY
    return deferred


cpdef waiting(untouched, turns):
    """A Deferred that waits for its value."""
    cdef DeferredFields deferred
    if debugging():
        return make_stock(untouched, turns, True)
    deferred = <DeferredFields>pt_new(untouched, NO_ARGS)
    deferred._turns = turns
    deferred.state = WAITING
    return deferred


cpdef bint is_waiting(deferred) except -1:
    """Whether a Deferred has no result yet; asking itself would materialise it."""
    if isinstance(deferred, DeferredFields) and (<DeferredFields>deferred).state != STOCK:
        return (<DeferredFields>deferred).state in (WAITING, DRIVEN)
    return not deferred.called


cpdef bint fire(deferred, value) except -1:
    """Give a waiting Deferred its value; False when it has materialised, and nothing was done."""
    cdef DeferredFields lazy
    cdef tuple args
    if not isinstance(deferred, DeferredFields):
        return False
    lazy = <DeferredFields>deferred
    if pt_is_failure(value, failure_class):
        materialise(lazy)
    if lazy.state == WAITING:
        lazy.value = value
        lazy.state = READY
        return True
    if lazy.state == DRIVEN:
        lazy.value = value
        driver, args = lazy.driver, lazy.args
        lazy.driver = lazy.args = None
        run_driver(lazy, driver, args)
        return True
    return False


cdef object untouched_get = None
cdef object untouched_confirm = None


def set_classes(get, confirm):
    """Tell the untouched classes of what a queue's `get()` and what a publish return."""
    global untouched_get, untouched_confirm
    untouched_get = get
    untouched_confirm = confirm


def succeeded(value=None):
    """As defer.succeed(), at a fifth of its price."""
    return ready(untouched_confirm, None, value)


def unconfirmed():
    """A Deferred that waits for a publish's confirm."""
    return waiting(untouched_confirm, None)


cdef class Line:
    """Who waits for a queue's messages, the oldest first, and what each waits for.

    That is a number: of messages in a list, or 0 or less for one message by itself. Most queues
    have one consumer: the oldest stands in fields, and get() costs 0.15 us less than with an
    OrderedDict alone.
    """

    #: The queue's, which has properties for the latter two: what was not taken yet; None, or the
    #: reason of the end; None, or how many may wait.
    cdef readonly object pending
    cdef public object closed, backlog
    cdef object popleft
    cdef object oldest      # None: none waits
    cdef Py_ssize_t wanted
    cdef object others
    cdef bint serving

    def __init__(self, pending not None):
        self.pending = pending
        self.popleft = pending.popleft
        self.others = OrderedDict()

    def __len__(self):
        return 0 if self.oldest is None else 1 + len(self.others)

    def __iter__(self):
        return iter(() if self.oldest is None else (self.oldest, *self.others))

    def __contains__(self, deferred):
        return deferred is not None and (deferred is self.oldest or deferred in self.others)

    def items(self):
        """Pairs of who waits and for what."""
        if self.oldest is None:
            return []
        return [(self.oldest, self.wanted), *self.others.items()]

    def add(self, deferred, Py_ssize_t wanted):
        """Let `deferred` wait behind the others."""
        self.join(deferred, wanted)

    cdef int join(self, deferred, Py_ssize_t wanted) except -1:
        if self.oldest is None:
            self.oldest = deferred
            self.wanted = wanted
        else:
            self.others[deferred] = wanted
        return 0

    def forget(self, deferred):
        """Let it wait no longer: what was cancelled leaves the next message to another one."""
        if deferred is self.oldest:
            self.leave()
        else:
            self.others.pop(deferred, None)

    cdef int leave(self) except -1:
        """The oldest goes."""
        self.oldest = None
        if len(self.others) != 0:
            self.oldest, self.wanted = self.others.popitem(False)
        return 0

    def clear(self):
        """Remove all that wait."""
        self.oldest = None
        self.others.clear()

    def get(self):
        """A Deferred of the next message that is pending, or of the next that comes.

        It has failed with the reason when the queue is closed. QueueUnderflow when as many wait
        already as may. See DeferredQueue.get().
        """
        return line_get(self)

    def get_many(self, Py_ssize_t wanted):
        """The same of up to `wanted` messages."""
        if self.oldest is None and len(self.pending) != 0:
            deferred = ready(untouched_get, self, self.pending.popmany(wanted))
        else:
            deferred = self.new(wanted)
        (<DeferredFields>deferred)._many = True
        return deferred

    def wait(self, Py_ssize_t wanted):
        """A Deferred that waits for its messages."""
        return self.new(wanted)

    cdef object new(self, Py_ssize_t wanted):
        if self.backlog is not None and len(self) >= self.backlog:
            raise QueueUnderflow()
        deferred = waiting(untouched_get, self)
        self.join(deferred, wanted)
        return deferred

    def serve(self):
        """Give what is pending to what waits, until one of the two is used up.

        What the callbacks do (get, put, close, cancel) takes effect here, not in a nested call.
        """
        self.hand_out()

    cdef int hand_out(self) except -1:
        cdef Py_ssize_t wanted
        if self.serving:
            return 0
        self.serving = True
        try:
            while self.oldest is not None and len(self.pending) != 0:
                deferred = self.oldest
                wanted = self.wanted
                self.leave()
                # Fired from outside: the message is for the next one.
                if is_waiting(deferred):
                    value = self.pending.popmany(wanted) if wanted > 0 else self.popleft()
                    if not fire(deferred, value):
                        self.fire(deferred, value)
        finally:
            self.serving = False
        return 0


cdef object line_get(Line self):
    if self.closed is not None:
        return self.refuse()
    if self.oldest is None and len(self.pending) != 0:
        return ready(untouched_get, self, self.popleft())
    return self.new(0)


def get_of(queue_class):
    """The `get()` of a queue's class that has its Line in the slot `_turns`."""
    return pt_get_of(queue_class, queue_class._turns, Line, <void *>line_get)


cdef class Waker:
    """What the decoder calls when a queue got messages: serves a waiting get() by itself.

    That is without a Python call. All else, and anything while `simple` is False, is `wake()`,
    which a subclass has.
    """

    cdef Line line
    cdef public bint simple

    def __init__(self, Line line not None):
        self.line = line
        self.simple = True

    def __call__(self):
        if self.simple and self.line.oldest is not None and self.line.closed is None:
            self.line.hand_out()
        else:
            self.wake()
