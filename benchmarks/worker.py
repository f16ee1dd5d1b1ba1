"""The process in which one client runs one measurement.

``python -m benchmarks.worker SPEC_AS_JSON`` prints one JSON line; ``{"skipped": "why"}`` is an
answer too.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from benchmarks.spec import Spec, Unsupported

MODULES = {
    "pika_twisted": "benchmarks.clients.twisted_client",
    "pika": "benchmarks.clients.twisted_client",
    "rabbitmq-c": "benchmarks.clients.rabbitmq_c",
    "bare": "benchmarks.clients.bare",
    "aio-pika": "benchmarks.clients.aio_pika_client",
    "aiormq": "benchmarks.clients.aiormq_client",
    "amqpstorm": "benchmarks.clients.amqpstorm_client",
    "py-amqp": "benchmarks.clients.py_amqp_client",
}
CLIENTS = tuple(MODULES)
WITHOUT_SOCKET = {"waiting", "chunks", "backlog"}  # cases of benchmarks.inprocess
TWISTED = ("pika_twisted", "pika")


def measure(spec: Spec) -> dict[str, Any]:
    """Run one measurement in this process."""
    try:
        if spec.case in WITHOUT_SOCKET and spec.client not in TWISTED:
            raise Unsupported("measured inside the process, which is for Twisted protocols")
        in_process = spec.case in WITHOUT_SOCKET
        client = importlib.import_module(
            "benchmarks.inprocess" if in_process else MODULES[spec.client]
        )
        answer: dict[str, Any] = client.run(spec)
    except Unsupported as error:
        return {"skipped": str(error)}
    except ModuleNotFoundError as error:
        return {"skipped": f"Python module {error.name} is not installed"}
    except ImportError as error:
        return {"skipped": f"cannot be imported: {error}"}
    return answer


def main() -> None:
    """Answer the one spec in the arguments."""
    spec = Spec(**json.loads(sys.argv[1]))
    print(json.dumps(measure(spec)), flush=True)


if __name__ == "__main__":
    main()
