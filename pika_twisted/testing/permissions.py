"""Users: passwords, and what they may do on which virtual host."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pika_twisted.testing.dialect import Dialect
from pika_twisted.testing.refusal import Refusal

CONFIGURE, WRITE, READ = "configure", "write", "read"


@dataclass
class User:
    """A user; `permissions` by virtual host and name are regular expressions, as RabbitMQ's."""

    name: str
    password: str
    permissions: dict[str, dict[str, str]] = field(default_factory=dict)

    def allow(self, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        """Give permissions on a virtual host."""
        self.permissions[vhost] = {CONFIGURE: configure, WRITE: write, READ: read}

    def check(self, dialect: Dialect, vhost: str, kind: str, name: str, what: str) -> None:
        """Check one permission on a queue or an exchange.

        :raises Refusal: 403, it is not given
        """
        pattern = self.permissions.get(vhost, {}).get(what, "")
        if pattern == ".*":
            return
        name = name or ("amq.default" if kind == "exchange" else "")
        if not pattern or re.search(pattern, name) is None:
            which = f"{what} " if dialect.names_permission else ""
            raise Refusal(
                403,
                f"{which}access to {kind} '{name}' in vhost '{vhost}' refused "
                f"for user '{self.name}'",
            )
