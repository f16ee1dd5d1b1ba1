/* libFuzzer with CPython inside: hands every input to one function of tests/fuzz/targets.py.
 *
 * PIKA_TWISTED_FUZZ names the target, PIKA_TWISTED_FUZZ_PYTHON the interpreter of the environment
 * whose packages are used. The compiled modules are imported as always; they were built with
 * -fsanitize=fuzzer-no-link and report their coverage to the libFuzzer of this program.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>

/* libFuzzer takes these for coverage too: one for each line of Python that ran. Only for sessions,
 * where most of what runs is Python. */
#define LINES (1 << 15)
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t lines[LINES];

/* Looking for leaks takes as long as hundreds of runs, as all of Python's heap is walked. libFuzzer
 * would do it after each run that keeps anything, then give up after 1,000 times. */
#define RUNS_PER_LEAK_CHECK 20000

static PyObject *target;

/* A bytes object ends in a NUL that belongs to nobody: reading it is one octet too far, and no
 * sanitizer sees it. Poisoned, it is seen. Objects of up to one octet are shared: not those. */
static PyObject *exact(PyObject *Py_UNUSED(module), PyObject *octets)
{
    char *from;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(octets, &from, &size) < 0)
        return NULL;
    PyObject *copy = PyBytes_FromStringAndSize(from, size);
    if (copy != NULL && size > 1)
        ASAN_POISON_MEMORY_REGION(PyBytes_AS_STRING(copy) + size, 1);
    return copy;
}

static int count_line(PyObject *Py_UNUSED(arg), PyFrameObject *frame, int what,
                      PyObject *Py_UNUSED(value))
{
    if (what == PyTrace_LINE) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        Py_hash_t file = PyObject_Hash(code->co_filename); /* kept in the string */
        uint8_t *count = &lines[((size_t)file * 31 + PyFrame_GetLineNumber(frame)) % LINES];
        *count += *count < 255;
        Py_DECREF(code);
    }
    return 0;
}

static PyMethodDef exact_method = {"exact", exact, METH_O, NULL};

static void check(int done)
{
    if (!done) {
        if (PyErr_Occurred())
            PyErr_Print();
        exit(70);
    }
}

static void start_python(const char *python)
{
    PyPreConfig before;
    PyConfig config;
    PyPreConfig_InitPythonConfig(&before);
    before.allocator = PYMEM_ALLOCATOR_MALLOC; /* or AddressSanitizer knows no object's borders */
    before.utf8_mode = 1;
    check(!PyStatus_Exception(Py_PreInitialize(&before)));
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0; /* libFuzzer's */
    config.use_hash_seed = 1;           /* the same input does the same every time */
    config.hash_seed = 0;
    check(!PyStatus_Exception(PyConfig_SetBytesString(&config, &config.program_name, python)));
    check(!PyStatus_Exception(Py_InitializeFromConfig(&config)));
    PyConfig_Clear(&config);
}

int LLVMFuzzerInitialize(int *Py_UNUSED(argc), char ***Py_UNUSED(argv))
{
    const char *name = getenv("PIKA_TWISTED_FUZZ");
    const char *python = getenv("PIKA_TWISTED_FUZZ_PYTHON");
    if (name == NULL || python == NULL) {
        fputs("start it with: python -m tests.fuzz\n", stderr);
        exit(64);
    }
    __lsan_disable(); /* what importing leaves behind is nobody's business here */
    start_python(python);
    PyObject *module = PyImport_ImportModule("tests.fuzz.targets");
    check(module != NULL);
    PyObject *function = PyCFunction_New(&exact_method, NULL);
    check(function != NULL && PyObject_SetAttrString(module, "exact", function) == 0);
    target = PyObject_CallMethod(module, "target", "s", name);
    check(target != NULL);
    if (strcmp(name, "session") == 0)
        PyEval_SetTrace(count_line, NULL);
    PyGC_Disable(); /* at moments of our own, or the same input does not do the same every time */
    __lsan_enable();
    return 0;
}

static void check_leaks(void)
{
    PyGC_Collect();
    if (__lsan_do_recoverable_leak_check())
        abort(); /* the input written down is the last of many; the report says where it came from */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned long runs;
    PyObject *octets = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *result = octets == NULL ? NULL : PyObject_CallOneArg(target, octets);
    if (result == NULL) {
        PyErr_Print();
        abort(); /* libFuzzer writes the input down */
    }
    Py_DECREF(result);
    Py_DECREF(octets);
    if (++runs % RUNS_PER_LEAK_CHECK == 0)
        check_leaks();
    return 0;
}
