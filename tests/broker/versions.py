"""What RabbitMQ's versions do differently: where a scenario expects two things, it asks here which.

Each entry has the first version that does it. A scenario is never skipped for its version unless
what it is about does not exist there; `Env.needs_rabbitmq` says so by name.
"""

from __future__ import annotations

Version = tuple[int, int]

CHANGES: dict[str, Version] = {
    # `global_qos` is a deprecated feature and denied on our nodes: the broker answers qos-ok and
    # counts for each consumer by itself, whatever was asked for. (4.3 denies it by default.)
    "prefetch is for each consumer": (4, 0),
    # Classic queues have one copy. Quorum queues need three nodes to survive the loss of one.
    "no mirrored classic queues": (4, 0),
    # A smaller frame_max in tune-ok: the broker closes the socket without a word.
    "frames of 8,192 bytes at least": (4, 1),
}

# 4.0 looks for transient queues before Mnesia has loaded the table of queues, takes the feature
# "transient_nonexcl_queues" for one in use, and refuses to boot where the configuration denies it.
# A race with the load: after a try or five it boots. Not in 4.3.
BOOTS_AT_NEXT_TRY = "failed_to_deny_deprecated_features"
BOOT_TRIES = 20


def parse(text: str) -> Version:
    """Return the version in "4.0.5" or "4.1.0-rc.1"."""
    major, minor, *_ = text.split(".")
    return int(major), int(minor)


def has(version: Version, change: str) -> bool:
    """Return True where a RabbitMQ of this version does what the entry of CHANGES says."""
    return version >= CHANGES[change]
