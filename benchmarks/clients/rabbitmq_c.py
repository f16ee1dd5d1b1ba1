"""rabbitmq-c, the C client: ``c_consumer.c`` compiled on the spot."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.clients import checks
from benchmarks.spec import Spec, Unsupported

SOURCE = Path(__file__).resolve().parent.parent / "c_consumer.c"
PROGRAM = SOURCE.parent / ".build" / "c_consumer"


def build() -> Path:
    """Return the compiled client, compiling it where it is missing or older than its source."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > SOURCE.stat().st_mtime:
        return PROGRAM
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unsupported("no C compiler")
    PROGRAM.parent.mkdir(exist_ok=True)
    command = [compiler, "-O2", "-o", str(PROGRAM), str(SOURCE), "-lrabbitmq"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[0] if done.stderr.strip() else "cc failed"
        raise Unsupported(f"rabbitmq-c does not compile (librabbitmq-dev installed?): {reason}")
    return PROGRAM


def run(spec: Spec) -> dict[str, Any]:
    """Run one measurement in a process of the C program."""
    if spec.case not in ("consume", "ack", "publish"):
        raise Unsupported(f"the C client has no case {spec.case}")
    if spec.case == "consume" and (spec.style != "await" or spec.channels != 1):
        raise Unsupported("the C client has one loop and one channel")
    options = {
        "queue": spec.queue,
        "warmup_queue": spec.warmup_queue,
        "messages": spec.messages,
        "warmup": spec.warmup,
        "ack": spec.ack,
        "properties": spec.properties,
        "size": spec.size,
        "prefetch": spec.prefetch,
        "confirm": spec.confirm,
        "live": int(spec.live),
    }
    arguments = [f"{name}={value}" for name, value in options.items()]
    command = [str(build()), spec.url, spec.case, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"the C client ended with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout)
    left, total = answer.pop("left"), answer.pop("sum")
    if spec.case == "publish":
        checks.all_published(spec, left, total)
    elif spec.ack != "auto" or spec.case == "ack":
        checks.all_acked(spec, left, total)
    return answer
