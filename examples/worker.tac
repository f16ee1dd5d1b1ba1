"""A consumer service: twistd -ny examples/worker.tac (AMQP_URL, QUEUE, CONCURRENCY)."""

import os

from twisted.application.service import Application
from twisted.logger import Logger

from pika_twisted import RecoveringService

QUEUE = os.environ.get("QUEUE", "work")
log = Logger(namespace="worker")


async def declare(channel):
    """Runs on each new connection, before anything else."""
    await channel.queue_declare(QUEUE, durable=True)


async def handle(message):
    """One message. Returning acknowledges it; raising puts it back into the queue after a pause."""
    log.info("handled {body}", body=message.body.decode())


service = RecoveringService(
    os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/").split(),
    setup=declare,
    drain_timeout=20,  # how long SIGTERM lets handlers finish
)
service.add_callback("lost", lambda reason: log.warn("connection lost: {reason}", reason=reason))

consuming = service.consume(
    QUEUE, handle, concurrency=int(os.environ.get("CONCURRENCY", "10")), ack_batching=100
)
consuming.addErrback(lambda failure: log.failure("consuming {queue}", failure, queue=QUEUE))

application = Application("worker")
service.setServiceParent(application)
