"""The compiled parts and the switches of their build; all else is in pyproject.toml.

``PIKA_TWISTED_DEBUG=1`` builds with bounds checks, assertions, line tracing for coverage, and an
annotated HTML page beside the generated C (never beside the source): `make debug`.
"""

import glob
import os
import platform
import sys

from setuptools import Extension, setup

DEBUG = os.environ.get("PIKA_TWISTED_DEBUG") == "1"

SOURCES = {
    "pika_twisted._frame": "_frame.pyx",
    "pika_twisted.deferreds._ready": "pika_twisted/deferreds/_ready.pyx",
}
INCLUDED = {"pika_twisted._frame": sorted(glob.glob("pika_twisted/codec/*.pxi"))}

# Python's own flags come first on the command line, so that these win.
RELEASE_FLAGS = [
    "-O3",  # inlines the cursor and the writers, on which the figures of the README rest
    "-g0",  # debug information would be four fifths of the file
    # Checked memcpy and friends wherever the compiler knows the size of the target: no cost that
    # could be measured. -fstack-protector-strong cost 3 % of a decoded message, so it is not here.
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
]
# The tables of addresses are filled in at load time and then read-only.
LINK_FLAGS = ["-Wl,-z,relro,-z,now"] if sys.platform == "linux" else []
DEBUG_FLAGS = [
    "-O1",  # a debugger's lines still match what runs
    "-g",
    "-UNDEBUG",  # the assertions of Cython's and CPython's headers
    "-DCYTHON_TRACE_NOGIL=1",  # line events for coverage, in every function
]
if "-fsanitize" in os.environ.get("CFLAGS", ""):
    RELEASE_FLAGS = []  # whoever runs sanitizers chooses; checked memcpy would hide from them
if sys.platform == "win32":
    RELEASE_FLAGS, DEBUG_FLAGS = ["/O2"], ["/Od"]


def extensions():
    """None on PyPy, where compiled Cython is slower than the reference in plain Python."""
    if platform.python_implementation() == "PyPy":
        return []
    found = [
        Extension(
            name,
            [source],
            depends=INCLUDED.get(name, []),  # compiled again when one changes, and in the sdist
            extra_compile_args=DEBUG_FLAGS if DEBUG else RELEASE_FLAGS,
            extra_link_args=LINK_FLAGS,
        )
        for name, source in SOURCES.items()
        if os.path.exists(source)
    ]
    for extension in found:  # read by the build_ext that setuptools takes from Cython
        extension.cython_c_in_temp = True
        extension.cython_directives = dict.fromkeys(("linetrace", "boundscheck"), DEBUG)
    if DEBUG:
        from Cython.Compiler import Options

        Options.annotate = True
    return found


setup(ext_modules=extensions())
