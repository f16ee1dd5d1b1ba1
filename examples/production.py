"""A consumer for Kubernetes or systemd: health, readiness, metrics, logs, and a drain on SIGTERM.

    pip install "pika-twisted[prometheus]"
    python examples/production.py      (AMQP_URL, QUEUE, CONCURRENCY, HTTP_PORT)

    /healthz   200 while the reactor turns: for the liveness probe
    /readyz    200 while messages are consumed, else 503 and why: for the readiness probe
    /metrics   for Prometheus

SIGTERM: /readyz says 503, no more messages come, handlers finish, acks leave, the process ends
with 0. When the queue can't be consumed the process ends with 1, to be restarted.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet import defer, endpoints, reactor, task
from twisted.logger import STDLibLogObserver, globalLogBeginner
from twisted.web import resource, server

from pika_twisted import RecoveringService
from pika_twisted.observing.prometheus import Metrics

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/").split()
QUEUE = os.environ.get("QUEUE", "work")
CONCURRENCY = int(os.environ.get("CONCURRENCY", "10"))
WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "0.001"))
HTTP_PORT = int(os.environ.get("HTTP_PORT", "8080"))
DRAIN_SECONDS = 20  # less than terminationGracePeriodSeconds or TimeoutStopSec, which are 30

log = logging.getLogger("worker")


async def declare(channel: Any) -> None:
    """Runs on each new connection, before anything else."""
    await channel.queue_declare(QUEUE, durable=True)


async def handle(message: Any) -> None:
    """One message. Returning acknowledges it; raising leads to another attempt."""
    await task.deferLater(reactor, WORK_SECONDS)  # stands for the work
    log.info("handled %s", message.body.decode())


class Worker:
    """The consumer, and what its state is."""

    def __init__(self, reactor: Any) -> None:
        self.service = RecoveringService(
            URL, setup=declare, drain_timeout=DRAIN_SECONDS, reactor=reactor
        )
        self.handling: Any = None
        self.stopping = False
        # Before the service's own trigger, which drains: it is set by startService().
        reactor.addSystemEventTrigger("before", "shutdown", self._on_shutdown)

    def _on_shutdown(self) -> None:
        self.stopping = True

    async def run(self) -> None:
        """Consume until the reactor stops; raise the reason when consuming ends earlier."""
        self.service.startService()
        starting = self.service.consume(QUEUE, handle, concurrency=CONCURRENCY)
        try:
            self.handling = await starting
            await self.handling.when_stopped()
        except Exception:
            if not self.stopping:
                raise

    def not_ready(self) -> str | None:
        """Why no messages are consumed; None while they are."""
        if self.stopping:
            return "stopping"
        stats = self.service.stats()
        if not stats.connected:
            return "not connected"
        if stats.refused:
            return f"refused: {stats.refused[0]}"
        if stats.connection.is_blocked:
            return "blocked by the broker"
        if self.handling is None:
            return "not consuming yet"
        return None


class Page(resource.Resource):
    """A page from a function that gives status, content type and text."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, content: Any) -> None:
        super().__init__()
        self.content = content

    def render_GET(self, request: Any) -> bytes:  # noqa: N802 - Twisted's name
        """Answer a GET."""
        status, content_type, body = self.content()
        request.setResponseCode(status)
        request.setHeader("Content-Type", content_type)
        return body if isinstance(body, bytes) else f"{body}\n".encode()


def make_site(worker: Worker) -> server.Site:
    """The three pages."""

    def ready() -> tuple[int, str, str]:
        why = worker.not_ready()
        return (200, "text/plain", "ready") if why is None else (503, "text/plain", why)

    metrics = Metrics()
    metrics.watch(QUEUE, worker.service)
    root = resource.Resource()
    root.putChild(b"healthz", Page(lambda: (200, "text/plain", "ok")))
    root.putChild(b"readyz", Page(ready))
    root.putChild(b"metrics", Page(lambda: (200, CONTENT_TYPE_LATEST, generate_latest())))
    return server.Site(root)


def begin_logging() -> None:
    """Python's logging to standard output, Twisted's log in it."""
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("pika").setLevel(logging.WARNING)  # a line for each frame of a handshake
    globalLogBeginner.beginLoggingTo([STDLibLogObserver()], redirectStandardIO=False)


async def main(reactor: Any) -> None:
    """The worker, and its pages."""
    begin_logging()
    worker = Worker(reactor)
    endpoint = endpoints.TCP4ServerEndpoint(reactor, HTTP_PORT)
    port = await endpoint.listen(make_site(worker))
    log.info("pages at port %d", port.getHost().port)
    await worker.run()


if __name__ == "__main__":
    task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
