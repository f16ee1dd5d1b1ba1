"""The compiled parts and the switches of their build; all else is in pyproject.toml.

``PIKA_TWISTED_PURE=1`` builds none: a package in plain Python, which runs on the reference codec.
``PIKA_TWISTED_DEBUG=1`` builds with bounds checks, assertions, line tracing for coverage, and an
annotated HTML page beside the generated C (never beside the source): `make debug`.
"""

import glob
import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, CCompilerError

DEBUG = os.environ.get("PIKA_TWISTED_DEBUG") == "1"
# Compiled Cython on PyPy is slower than the reference in plain Python.
PURE = os.environ.get("PIKA_TWISTED_PURE") == "1" or platform.python_implementation() == "PyPy"
PURE_MARK = "pika_twisted/codec/_pure_build.py"  # read by codec/chooser.py
WITHOUT_COMPILER = """
pika-twisted was not built: see the error above. It needs a C compiler and Python's headers:
  Debian, Ubuntu: apt install gcc libc6-dev python3-dev     Fedora: dnf install gcc python3-devel
  Alpine: apk add gcc musl-dev python3-dev                  macOS: xcode-select --install
  Windows: "Desktop development with C++" of Visual Studio Build Tools
Without a compiler: PIKA_TWISTED_PURE=1 pip install ... (plain Python, 20 times slower)"""

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


class BuildModules(build_ext):
    """Compile; where that fails, the last line says what to install."""

    def run(self):  # noqa: D102
        try:
            super().run()
        except (BaseError, CCompilerError, OSError) as error:
            sys.exit(f"error: {error}\n{WITHOUT_COMPILER}")


class BuildPython(build_py):
    """Copy the modules; in a build without compiled ones with a mark that says so."""

    def run(self):  # noqa: D102
        super().run()
        if PURE and not self.editable_mode:
            mark = Path(self.build_lib, PURE_MARK)
            mark.write_text('"""This package was built without compiled modules."""\n')


def extensions():
    """Return the modules to compile."""
    if PURE:
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


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildModules, "build_py": BuildPython})
