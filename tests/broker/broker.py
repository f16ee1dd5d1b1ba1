"""What a scenario has to know about the broker it talks to; travels as JSON to the runners."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

ENVIRONMENT = "PIKA_TWISTED_TEST_BROKER"


@dataclass(frozen=True)
class Broker:
    """An address with credentials; `folder` names our own node, None for a broker of the user's."""

    host: str
    port: int
    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    tls_port: int | None = None
    authority: str | None = None
    stranger: str | None = None
    limited_user: str | None = None
    limited_password: str | None = None
    folder: str | None = None

    @property
    def private(self) -> bool:
        """True for a node of ours: it may be frozen, killed, and given users."""
        return self.folder is not None

    def url(self, *, vhost: str | None = None, **query: object) -> str:
        """An amqp URL as pika.URLParameters takes it."""
        vhost = quote(self.vhost if vhost is None else vhost, safe="")
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        text = "&".join(f"{key}={value}" for key, value in query.items())
        return f"amqp://{login}@{self.host}:{self.port}/{vhost}" + (f"?{text}" if text else "")

    def to_json(self) -> str:
        """All fields, for the environment of a runner."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Broker:
        """The reverse of to_json()."""
        return cls(**json.loads(text))

    @classmethod
    def from_url(cls, url: str) -> Broker:
        """A broker the user named in AMQP_URL; plain amqp only, TLS needs our own certificates."""
        parts = urlsplit(url)
        if parts.scheme != "amqp" or not parts.hostname:
            raise ValueError(f"AMQP_URL must look like amqp://user:password@host:5672/vhost: {url}")
        vhost = unquote(parts.path[1:]) if len(parts.path) > 1 else "/"
        return cls(
            parts.hostname,
            parts.port or 5672,
            unquote(parts.username or "guest"),
            unquote(parts.password or "guest"),
            vhost,
        )
