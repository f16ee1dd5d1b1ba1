"""One worker process per core, all on one queue.

    python examples/workers.py [PROCESSES]

Ctrl-C or SIGTERM stops them gracefully.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from typing import Any

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/").split()
QUEUE = os.environ.get("QUEUE", "work")


def work(number: int) -> None:
    """What one process does; a reactor can't be shared, so it is imported here."""
    from twisted.internet import reactor, task

    from pika_twisted import RecoveringService

    async def declare(channel: Any) -> None:
        await channel.queue_declare(QUEUE, durable=True)

    async def handle(message: Any) -> None:
        await task.deferLater(reactor, 0.001)  # stands for the work
        print(f"worker {number}: {message.body.decode()}", flush=True)

    service = RecoveringService(URL, setup=declare)
    service.startService()  # the end of the reactor stops it in good order
    consuming = service.consume(QUEUE, handle, concurrency=10, ack_batching=100)
    consuming.addErrback(lambda failure: failure.printTraceback())

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one stops nothing more
        reactor.callFromThread(reactor.stop)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes on SIGTERM
    reactor.run(installSignalHandlers=False)


def main() -> None:
    """Start the processes, and stop them when we are asked to stop."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")  # a reactor doesn't survive a fork
    workers = [context.Process(target=work, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()

    def stop(*_: Any) -> None:
        # From here a signal stops nothing more: not the joins below, and not the interpreter's own
        # end, when it puts the default back in place of handlers (but leaves what is ignored).
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for worker in workers:
        worker.join()
    sys.exit(max(abs(worker.exitcode or 0) for worker in workers))


if __name__ == "__main__":
    main()
