"""Where RabbitMQ is installed: on this system, or in a folder that holds a Debian of its own.

BROKER chooses: a version that `.ci/setup broker` knows ("3.10", "4.0", "4.3"), or the path of such
a folder. Without it this system's RabbitMQ is used. A node in a folder runs under chroot(2), so it
needs root; its data lies in the folder too, and its own paths begin there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHOICE = "BROKER"
# Debian's wrappers in /usr/sbin insist on their own home folder; these scripts behind them do not.
SCRIPT_FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")
SERVER_FOLDERS = "usr/lib/rabbitmq/lib"  # Debian's: rabbitmq_server-VERSION in it
SERVICE_USER = "rabbitmq"
CHROOT_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# RabbitMQ reads its memory from /proc. It is mounted in a namespace that ends with the process: the
# system itself never sees the mount, whatever becomes of the test run.
WITH_PROC = (
    "unshare",
    "--mount",
    "--propagation=private",
    "sh",
    "-c",
    'mount -t proc proc "$0/proc" && exec "$@"',
)


class NodeError(Exception):
    """The node would not start, stop or obey; the text holds what it said."""


@dataclass(frozen=True)
class Installation:
    """One RabbitMQ, with how its programs are started; `root` is "/" for this system's own."""

    root: str = "/"

    @property
    def is_chroot(self) -> bool:
        return self.root != "/"

    @property
    def as_service_user(self) -> bool:
        """True where programs are started by root, for another user."""
        return os.geteuid() == 0

    @property
    def path(self) -> str:
        """PATH for its programs."""
        return CHROOT_PATH if self.is_chroot else os.environ.get("PATH", "/usr/bin:/bin")

    def account(self) -> tuple[int, int]:
        """The numbers of the user and the group that RabbitMQ's package made."""
        if not self.is_chroot:
            try:
                found = pwd.getpwnam(SERVICE_USER)
            except KeyError:
                raise NodeError(
                    f"run as root, the private node needs the user {SERVICE_USER!r} that the"
                    " distribution's rabbitmq-server package creates; or run the tests as an"
                    " ordinary user"
                ) from None
            return found.pw_uid, found.pw_gid
        # The numbers differ from this system's: the folder's own table counts.
        for line in Path(self.root, "etc/passwd").read_text().splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == SERVICE_USER:
                return int(uid), int(gid)
        raise NodeError(f"{self.root} has no user {SERVICE_USER!r}: is rabbitmq-server in it?")

    def new_folder(self, prefix: str) -> Path:
        """Make a folder that the node can reach."""
        return Path(
            tempfile.mkdtemp(prefix=prefix, dir=Path(self.root, "tmp") if self.is_chroot else None)
        )

    def inside(self, path: str | Path) -> str:
        """Return the path as the node's own programs name it."""
        return f"/{Path(path).relative_to(self.root)}" if self.is_chroot else str(path)

    def command(self, arguments: list[str]) -> list[str]:
        """Put in front what changes the root and, started by root, the user."""
        if not self.as_service_user:
            return arguments
        if not self.is_chroot:
            user = SERVICE_USER
            return ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--", *arguments]
        uid, gid = self.account()
        within = ["chroot", f"--userspec={uid}:{gid}", f"--groups={gid}", self.root, *arguments]
        return [*WITH_PROC, self.root, *within]

    def program(self, name: str) -> str | None:
        """Return the path of a program as its PATH finds it, None without."""
        if not self.is_chroot:
            return shutil.which(name)
        for folder in self.path.split(":"):
            if os.path.lexists(f"{self.root}{folder}/{name}"):
                return f"{folder}/{name}"
        return None

    def script(self, name: str) -> str:
        """Return the path of a script of RabbitMQ's; RABBITMQ_BIN names a folder to try first."""
        if self.is_chroot:
            return f"{SCRIPT_FOLDERS[0]}/{name}"
        for folder in (os.environ.get("RABBITMQ_BIN", ""), *SCRIPT_FOLDERS):
            if folder and os.access(Path(folder, name), os.X_OK):
                return str(Path(folder, name))
        found = shutil.which(name)
        if found is None:
            raise NodeError(
                f"{name} was not found. Install RabbitMQ (Debian, Ubuntu: apt install"
                " rabbitmq-server), or set RABBITMQ_BIN to its folder, or AMQP_URL to a broker that"
                " is running, or leave the broker tests out by name: make test-unit"
            )
        return str(Path(found).resolve())


def has_server(root: str | Path, version: str = "") -> bool:
    """Return True where Debian's rabbitmq-server of this version ("4.0") is installed in `root`."""
    return any(Path(root, SERVER_FOLDERS).glob(f"rabbitmq_server-{version}{version and '.'}*"))


def folder_of(version: str) -> Path:
    """Return where `.ci/setup broker` keeps a version's chroot."""
    cache = os.environ.get("XDG_CACHE_HOME") or "/var/cache"
    return Path(cache, "pika-twisted/brokers", version)


def find_installation() -> Installation:
    """Return the installation that BROKER names; NodeError where it is not there."""
    choice = os.environ.get(CHOICE, "")
    if not choice or ("/" not in choice and has_server("/", choice)):
        return Installation()
    folder = Path(choice).resolve() if "/" in choice else folder_of(choice)
    if not has_server(folder):
        raise NodeError(
            f"{CHOICE}={choice}: there is no RabbitMQ in {folder}."
            + ("" if "/" in choice else f" Install it (as root): .ci/setup broker {choice}")
        )
    if os.geteuid() != 0:
        raise NodeError(
            f"{CHOICE}={choice}: a node in a folder of its own needs root (chroot). Run the tests"
            " as root, or set AMQP_URL to a running broker of that version."
        )
    return Installation(str(folder))
