# ruff: noqa: E501
"""Faults put into the package by hand, each a change of its text: file, what stands there, instead.

The first ones are faults that earlier versions had.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One fault."""

    name: str
    path: str
    before: str
    after: str


_CHANNEL = "channel/channel.py"
_LEDGER = "channel/ledger.py"
_CONFIRMS = "channel/confirms.py"
_GETTING = "channel/getting.py"
_QUEUE = "channel/queue.py"
_CONSUMER = "channel/consumer.py"
_SETTLING = "channel/acknowledging.py"
_HANDLERS = "consuming/handlers.py"
_FAILURES = "consuming/failures.py"
_WAITERS = "deferreds/waiters.py"

MUTANTS = (
    Mutant(
        "returns matched without properties",
        _CONFIRMS,
        "        if not number:\n            number = self._similar(key, body, raw)",
        "        number = next((n for n, full in self._mandatory.items() if full[0] == key), 0)",
    ),
    Mutant(
        "a deleted queue's consumer gets the cancel of the next one",
        _CHANNEL,
        "self._channel.on_queue_deleted(consumer_tag)",
        "pass",
    ),
    Mutant(
        "ack(0, multiple) counts what was handed out only",
        _LEDGER,
        "return max(self._highest, self._received())",
        "return self._highest",
    ),
    Mutant(
        "a get that was cancelled nacks after recover",
        _CHANNEL,
        "if self._channel.is_open and not self._recovering:",
        "if self._channel.is_open:",
    ),
    Mutant(
        "a stopped handling stays on its channel",
        _HANDLERS,
        "self.channel.remove_on_close_callback(self._on_channel_closed)",
        "pass",
    ),
    Mutant(
        "a publisher that has ended stays on its channel",
        "publisher.py",
        "channel.remove_on_close_callback(self._on_channel_closed)",
        "pass",
    ),
    Mutant(
        "a watched frame stays after a cancel",
        _CHANNEL,
        "deferred.addBoth(forget)  # also where it is cancelled",
        "pass",
    ),
    Mutant(
        "a publisher keeps the arguments that it was given",
        "publisher.py",
        "if self._is_kept(one):",
        "if False:",
    ),
    Mutant(
        "a generator function counts as a handler that worked",
        "consuming/calling.py",
        "if isgenerator(result) or isasyncgen(result):",
        "if False:",
    ),
    Mutant(
        "a call is not failed when the channel closes",
        _CHANNEL,
        "for deferred in (*calls, *self._give_up_gets(), *observers):",
        "for deferred in (*self._give_up_gets(), *observers):",
    ),
    Mutant(
        "a get is not failed when the channel closes",
        _CHANNEL,
        "for deferred in (*calls, *self._give_up_gets(), *observers):",
        "for deferred in (*calls, *observers):",
    ),
    Mutant(
        "observers are not failed when the channel closes",
        _CHANNEL,
        "for deferred in (*calls, *self._give_up_gets(), *observers):",
        "for deferred in (*calls, *self._give_up_gets()):",
    ),
    Mutant(
        "confirms are not failed when the channel closes",
        _CHANNEL,
        "        self._confirms.fail_all(reason)\n",
        "",
    ),
    Mutant(
        "queues stay open when the channel closes",
        _CHANNEL,
        "            record.close(reason, End.CHANNEL_CLOSED)",
        "            pass",
    ),
    Mutant(
        "a cancelled consume goes on",
        _CHANNEL,
        "            if consumer.abandoned:\n                self._cancel_consumer(consumer)",
        "            if False:\n                self._cancel_consumer(consumer)",
    ),
    Mutant(
        "the messages of a cancelled consume are kept",
        _CONSUMER,
        "            self._turn_back(method.delivery_tag)",
        "            pass",
    ),
    Mutant(
        "an auto_ack message is nacked",
        _CONSUMER,
        "        if self.auto_ack:\n            self._dropped += 1",
        "        if False:\n            self._dropped += 1",
    ),
    Mutant(
        "a cancelled get keeps its message",
        _GETTING,
        "            self._requeue(message.method.delivery_tag)",
        "            pass",
    ),
    Mutant(
        "a cancelled auto_ack get is nacked",
        _GETTING,
        "        elif get.auto_ack:",
        "        elif False:",
    ),
    Mutant(
        "a cancelled get keeps its place",
        _GETTING,
        "            self._leave_get(get)\n\n        # Reg",
        "            pass\n\n        # Reg",
    ),
    Mutant(
        "an empty get is not answered",
        _GETTING,
        "            deferred.callback(None)",
        "            pass",
    ),
    Mutant(
        "an auto_ack message makes a gap in the ledger",
        _SETTLING,
        "            self._ledger.skip(delivery_tag)",
        "            pass",
    ),
    Mutant(
        "auto_ack messages can be acked",
        _SETTLING,
        "if self._auto_ack_tags and self._is_auto_ack(method):",
        "if False:",
    ),
    Mutant(
        "a message can be settled twice",
        _LEDGER,
        "        if isinstance(tag, int) and self.is_settled(tag):",
        "        if False:",
    ),
    Mutant(
        "one ack too many in a batch",
        _LEDGER,
        "            due = self._encoder.ack(end, True)",
        "            due = self._encoder.ack(end + 1, True)",
    ),
    Mutant(
        "acks above a gap are forgotten",
        _LEDGER,
        "        for tag in apart:\n",
        "        for tag in ():\n",
    ),
    Mutant(
        "held acks are never sent",
        _LEDGER,
        "        if held == 1 and self._hold is not None:",
        "        if False:",
    ),
    Mutant(
        "the gap does not close",
        _LEDGER,
        "        low = self._low = max(was, self._ends[number - 1])",
        "        low = self._low = was",
    ),
    Mutant(
        "ack up to forgets what is below",
        _LEDGER,
        "        self._settle_up_to(tag or self._last_received())",
        "        self._settle(tag)",
    ),
    Mutant(
        "recover leaves tags open",
        _LEDGER,
        "        self._settle_up_to(self._last_received())",
        "        pass",
    ),
    Mutant(
        "a nack of many takes held acks with it",
        _LEDGER,
        "        due = self.emit()  # what",
        "        due = False  # what",
    ),
    Mutant(
        "a returned message is taken for confirmed",
        _CONFIRMS,
        "        self._returned[number] = message\n",
        "",
    ),
    Mutant(
        "the last of a multiple confirm is left out",
        _CONFIRMS,
        "range(self._lowest, tag + 1)",
        "range(self._lowest, tag)",
    ),
    Mutant(
        "consumers whose queue was deleted are not told",
        _CHANNEL,
        "            self._remove_consumer(consumer_tag, reason, End.BY_BROKER)",
        "            pass",
    ),
    Mutant(
        "the broker's cancel is not told",
        _CHANNEL,
        "        consumer = self._records.get(method_frame.method.consumer_tag)\n        self._on",
        "        return method_frame\n        self._on",
    ),
    Mutant(
        "a queue that its user closed keeps its consumer",
        _CONSUMER,
        "            self._stop(self)",
        "            pass",
    ),
    Mutant(
        "get_many gives one more",
        _QUEUE,
        "return self._turns.get_many(max_messages)",
        "return self._turns.get_many(max_messages + 1)",
    ),
    Mutant(
        "who waits is not told that the queue is closed",
        _QUEUE,
        "        for waiter, wanted in waiters:\n",
        "        for waiter, wanted in waiters[1:]:\n",
    ),
    Mutant(
        "async for raises after a client's cancel",
        _QUEUE,
        "                ends = end and wanted == _NEXT",
        "                ends = False",
    ),
    Mutant(
        "drain leaves one",
        _QUEUE,
        "self.pending.popmany(len(self.pending))",
        "self.pending.popmany(len(self.pending)) if len(self.pending) != 2 else (self.pending.clear() or [])",
    ),
    Mutant(
        "one handler too many",
        _HANDLERS,
        "for _ in range(self._concurrency):",
        "for _ in range(self._concurrency + 1):",
    ),
    Mutant(
        "handled messages are not acknowledged",
        _HANDLERS,
        "                settle(message.ack)\n                return True",
        "                return True",
    ),
    Mutant(
        "failed handlers are acknowledged",
        _HANDLERS,
        "                if not await self._failures.failed(message, error):",
        "                settle(message.ack)\n                if not await self._failures.failed(message, error):",
    ),
    Mutant(
        "stop() gives nothing back",
        _HANDLERS,
        "            for message in self._messages.drain():",
        "            for message in ():",
    ),
    Mutant(
        "stop() has no deadline",
        _HANDLERS,
        "        for worker in list(self._workers):\n            worker.cancel()",
        "        pass",
    ),
    Mutant(
        "a handler cut off keeps its message",
        _HANDLERS,
        "                    settle(message.nack)\n                    return False",
        "                    return False",
    ),
    Mutant(
        "time-outs of handlers are not kept",
        "consuming/calling.py",
        "    if timeout is not None:\n        result.add",
        "    if False:\n        result.add",
    ),
    Mutant(
        "a failed message is kept",
        _FAILURES,
        "        else:\n            settle(message.reject)\n        return False",
        "        return False",
    ),
    Mutant(
        "parked messages are kept at the end",
        _FAILURES,
        "            timer.cancel()\n            settle(message.reject)",
        "            timer.cancel()",
    ),
    Mutant("timers of parked messages are left", _FAILURES, "            timer.cancel()\n", ""),
    Mutant(
        "a message given up is acknowledged",
        _FAILURES,
        "            settle(message.reject, False)\n        else:",
        "            settle(message.ack)\n        else:",
    ),
    Mutant(
        "pauses do not end with the channel",
        _FAILURES,
        "            pause.cancel()",
        "            pass",
    ),
    Mutant(
        "a handler's own settling is not seen",
        _FAILURES,
        "        if message.channel._is_settled(message):  # by the handler, before it failed\n            return False\n",
        "",
    ),
    Mutant(
        "a publisher sends one more than it may",
        "publisher.py",
        "if len(self._in_flight) >= self.max_in_flight:",
        "if len(self._in_flight) > self.max_in_flight:",
    ),
    Mutant(
        "a publisher's time-out does nothing",
        "publisher.py",
        "        deferred = one.leave()\n        if deferred is not None and not deferred.called:\n            self.failed += 1\n            why",
        "        deferred = None\n        if deferred is not None and not deferred.called:\n            self.failed += 1\n            why",
    ),
    Mutant(
        "a publisher leaves timers",
        "publisher.py",
        "        if timer is not None and timer.active():\n            timer.cancel()",
        "        pass",
    ),
    Mutant(
        "what waits in a publisher is not failed",
        "publisher.py",
        "        left = [*self._take_again(), *self._waiting]",
        "        left = [*self._take_again()]",
    ),
    Mutant(
        "a publisher does not go on after a confirm",
        "publisher.py",
        "        self._finish(one, result)\n        self._pump()",
        "        self._finish(one, result)",
    ),
    Mutant(
        "a publisher is never idle",
        "publisher.py",
        "            self._idle_waiters.fire()",
        "            pass",
    ),
    Mutant(
        "waiters are fired but the last",
        _WAITERS,
        "for waiter in self.take():",
        "for waiter in list(self.take())[:-1]:",
    ),
    Mutant(
        "each of several ConsumeOk lets the next call go",
        "pika_state/channel.py",
        "            if self._consumes > 0:\n                return",
        "            pass",
    ),
    Mutant(
        "a consumer that comes back is forgotten with its connection",
        "recovery/consumers.py",
        "            elif consumer.state is EntityState.RECOVERING:  # lost",
        "            elif False:  # lost",
    ),
)
