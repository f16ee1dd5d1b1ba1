"""Where RabbitMQ's releases give different answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """What one release says and does, where others differ."""

    version: str
    #: Default x-delivery-limit of quorum queues; None for none.
    delivery_limit: int | None
    #: Whether the text of a missing permission names it ("configure access to ...").
    names_permission: bool


def dialect(version: str) -> Dialect:
    """Return the dialect of a release.

    :raises ValueError: it is no version, such as "4.1.0"
    """
    try:
        number = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        raise ValueError(f'version is one of RabbitMQ\'s, as "4.1.0", not {version!r}') from None
    return Dialect(
        version,
        delivery_limit=20 if number >= (4, 0) else None,
        names_permission=number >= (3, 11),
    )
