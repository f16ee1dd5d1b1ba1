"""Whether pika and Twisted are ones that this package works with: said at import.

An installer sees to the versions by itself. This is for environments that were put together in
another way, and for a pika that is newer than this package and moved what is used of it.
The unit suite was run with these versions; pyproject.toml has the same.
"""

from __future__ import annotations

import re

import pika
import twisted

OLDEST = {"pika": "1.3.2", "Twisted": "22.10.0"}

#: The newest pika that the unit suite was run with.
NEWEST_PIKA = "1.5"


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare with: "22.10.0rc1" is (22, 10, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def require(package: str, version: str, path: object) -> None:
    """Raise ImportError when `version` of `package`, found at `path`, is too old."""
    oldest = OLDEST[package]
    if numbers(version) < numbers(oldest):
        raise ImportError(
            f"pika_twisted needs {package} {oldest} or newer, and this is {package} {version} "
            f"({path}). Upgrade it: python -m pip install --upgrade '{package}>={oldest}'"
        )


def refuse(missing: list[str], version: str, path: object) -> ImportError:
    """Return what says that this pika lacks names which are overridden or used here."""
    newest = numbers(NEWEST_PIKA)
    if numbers(version)[: len(newest)] > newest:
        advice = (
            "It is too new for this version: python -m pip install --upgrade pika-twisted, or "
            f"python -m pip install 'pika=={NEWEST_PIKA}.*'"
        )
    else:
        advice = "Was it changed? python -m pip install --force-reinstall pika puts it right"
    return ImportError(
        f"pika_twisted knows pika {OLDEST['pika']} to {NEWEST_PIKA}. This is pika {version} "
        f"({path}), in which {', '.join(missing)} can't be found. {advice}"
    )


require("pika", pika.__version__, pika.__file__)
require("Twisted", twisted.__version__, twisted.__file__)
