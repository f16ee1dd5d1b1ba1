"""Which delivery tags of one channel are settled, and acks that leave as one.

A broker answers a tag that was settled before, or that never needed an ack, with Channel.Close 406.
A `Ledger` stands between a channel's ack methods and its encoder, and refuses such a tag when it is
named.
With a batch size above 1 it also holds acks back until the turn of the reactor ends, or a delay is
over, and then lets those without a gap below them leave as a single one:

    open tags:       4   5   6   7   8   9        acked: 4 5 6 8
    leaves:          ack(6, multiple=True), ack(8)
    still open:                  7       9

Tags are the channel's: 1, 2, 3 ... for what all its consumers and gets receive. A tag of an
auto_ack consumer was settled by its delivery, so it makes no gap, and it is never named.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

from pika_twisted.exceptions import AlreadySettled


class Ledger:
    """The face of the codec's channel encoder over another one, minding what is settled.

    :param encoder: the channel's real encoder
    :param first: the lowest tag that is looked after; settling a lower one is only remembered
    :param batch: let so many acks leave together; 1 to let each leave at once
    :param hold: called with this ledger when acks are held back; is to call `emit()` soon
    :param received: returns the tag of the latest message that has come
    """

    def __init__(
        self,
        encoder: Any,
        first: int = 1,
        batch: int = 1,
        hold: Callable[[Ledger], Any] | None = None,
        received: Callable[[], int] = lambda: 0,
    ) -> None:
        self._encoder = encoder
        self.publish = encoder.publish
        self.batch = batch
        #: Seconds that held acks may wait beyond the turn: what `hold` goes by.
        self.delay: float = 0.0
        self._hold = hold
        self._received = received
        # Every tag from the first up to here is settled.
        self._low = self._first = first
        # Settled tags above a gap, in runs: not more of them than open tags below, however long one
        # tag stays open. A run begins at its start and ends before its end; they never touch.
        self._starts: list[int] = []
        self._ends: list[int] = []
        # Of those below the first: the highest that a multiple one named, and single ones.
        self._swept = 0
        self._earlier: set[int] = set()
        # What leaves next: the tag for one multiple ack (0: none), and those above a gap, which are
        # keys in the order of their acks.
        self._end = 0
        self._apart: dict[int, None] = {}
        self._held = 0
        self._highest = 0
        #: It has seen every message of the channel, so acks may be put together.
        self.complete = False
        self._acks_in = 0
        self.acks_out = 0

    def __repr__(self) -> str:
        more = sum(self._ends) - sum(self._starts)
        return f"<Ledger settled below {self._low} and {more} more, {self._held} held>"

    @property
    def open(self) -> bool:
        """Whether the channel can be used."""
        return bool(self._encoder.open)

    def is_settled(self, tag: int) -> bool:
        """Whether naming this tag would be an error."""
        if tag < self._first:
            return 0 < tag <= self._swept or tag in self._earlier
        if tag < self._low:
            return True
        number = bisect_right(self._starts, tag)
        return number > 0 and tag < self._ends[number - 1]

    @property
    def acks_in(self) -> int:
        """How many acks were asked for; `acks_out` of them, or fewer, were written."""
        return self._acks_in + self._held

    def ack_next(self, tag: int) -> int:
        """The short cut of `ack()` for the usual case, which is the lowest open tag.

        0: it is not the usual case, nothing was done; 1: done; 2: done, and time to flush.
        """
        if tag != self._low or not self._encoder.open:
            return 0
        self._low = tag + 1
        if self.batch == 1:
            if self._starts:
                self._close_gap()
            self._acks_in += 1
            self.acks_out += 1
            return 2 if self._encoder.ack(tag, False) else 1
        self._end = tag
        if self._starts:
            self._close_gap()
        return 2 if self._hold_back() else 1

    # What the channel calls instead of its encoder; all return whether to flush now

    def ack(self, delivery_tag: int | None = 0, multiple: bool = False) -> bool:
        """Acknowledge, at once or with others."""
        tag: Any = delivery_tag
        # True and 1.0 equal 1, and are refused only by the encoder: here, not when the batch ends.
        usual = tag == self._low and type(tag) is int and not multiple
        if usual and self.batch > 1 and self._encoder.open:
            self._end = tag
            self._low = tag + 1
            if self._starts:
                self._close_gap()
            return self._hold_back()
        if not self._encoder.open:
            return True  # the caller finds out why
        if multiple:
            return self._settle_all("ack", tag)
        self._claim(tag)
        if self.batch == 1 or type(tag) is not int or not self._first <= tag < 1 << 64:
            return self._write("ack", tag, False)
        self._add_beyond(tag)
        self._apart[tag] = None
        return self._hold_back()

    def nack(
        self, delivery_tag: int | None = 0, multiple: bool = False, requeue: bool = True
    ) -> bool:
        """Refuse, at once."""
        if not self._encoder.open:
            return True
        if multiple:
            return self._settle_all("nack", delivery_tag, requeue)
        self._claim(delivery_tag)
        return self._write("nack", delivery_tag, False, requeue)

    def reject(self, delivery_tag: int | None, requeue: bool = True) -> bool:
        """Refuse one, at once."""
        if not self._encoder.open:
            return True
        self._claim(delivery_tag)
        return self._write("reject", delivery_tag, requeue)

    # What the channel tells

    def note(self, tag: int) -> None:
        """A message with this tag has come."""
        if tag > self._highest:
            self._highest = tag

    def skip(self, tag: int) -> None:
        """A message with this tag has come that needs no ack."""
        self.note(tag)
        self._settle(tag)

    def void(self) -> None:
        """The broker has taken back everything that was open: naming it would be an error."""
        self._end, self._apart = 0, {}
        self._settle_up_to(self._last_received())

    def emit(self) -> bool:
        """Encode the acks that are held back; whether they have to be flushed now."""
        end, self._end = self._end, 0
        apart, self._apart = self._apart, {}
        self._acks_in += self._held
        self._held = 0
        due = False
        if end:
            self.acks_out += 1
            due = self._encoder.ack(end, True)
        for tag in apart:
            self.acks_out += 1
            due = self._encoder.ack(tag, False) or due
        return due

    # Inside

    def _last_received(self) -> int:
        return max(self._highest, self._received())

    def _claim(self, tag: Any) -> None:
        if isinstance(tag, int) and self.is_settled(tag):
            raise AlreadySettled(
                f"The message with delivery tag {tag} is acknowledged or refused already, or was "
                "delivered with auto_ack"
            )

    def _write(self, name: str, tag: Any, *arguments: bool) -> bool:
        due: bool = getattr(self._encoder, name)(tag, *arguments)  # may find the tag no int
        self._settle(0 if tag is None else tag)
        if name == "ack":
            self._acks_in += 1
            self.acks_out += 1
        return due

    def _settle(self, tag: int) -> None:
        """This tag needs nothing any more."""
        if tag == self._low:
            self._low += 1
            if self._starts:
                self._close_gap()
        elif tag > self._low:
            self._add_beyond(tag)
        elif 0 < tag < self._first:
            self._earlier.add(tag)

    def _add_beyond(self, tag: int) -> None:
        """This tag, which is above a gap, is settled."""
        starts, ends = self._starts, self._ends
        number = bisect_right(starts, tag)
        after = number > 0 and ends[number - 1] >= tag
        before = number < len(starts) and starts[number] == tag + 1
        if after and before:
            ends[number - 1] = ends.pop(number)
            del starts[number]
        elif after:
            ends[number - 1] = max(ends[number - 1], tag + 1)
        elif before:
            starts[number] = tag
        else:
            starts.insert(number, tag)
            ends.insert(number, tag + 1)

    def _close_gap(self) -> None:
        """The tags above what was a gap have nothing open below them now."""
        was = self._low
        number = bisect_right(self._starts, was)
        if not number:
            return
        low = self._low = max(was, self._ends[number - 1])
        del self._starts[:number], self._ends[:number]
        apart = self._apart
        if apart:  # of which those leave with the multiple one
            passed: Iterable[int] = range(was, low) if low - was < len(apart) else list(apart)
            for tag in passed:
                if tag < low and tag in apart:
                    del apart[tag]
                    self._end = max(self._end, tag)

    def _hold_back(self) -> bool:
        held = self._held = self._held + 1
        if held >= self.batch:
            return self.emit()
        if held == 1 and self._hold is not None:
            self._hold(self)
        return False

    def _settle_all(self, name: str, delivery_tag: Any, *arguments: bool) -> bool:
        """An ack or nack of everything up to a tag; 0: of everything that has come."""
        tag = 0 if delivery_tag is None else delivery_tag
        if isinstance(tag, bool) or not isinstance(tag, int):
            return bool(getattr(self._encoder, name)(tag, True, *arguments))  # which says why not
        if tag == 0 and (self.complete or self.batch > 1):
            # The broker would take 0 for what is still under way, too: tags not seen here.
            tag = self._last_received()
            if tag < self._low:
                return self.emit()
        elif tag:
            self._claim(tag)
        due = self.emit()  # what was acknowledged must not be refused with the rest
        if tag >= self._low and self.is_settled(tag):  # named by emit() just now
            tag = self._starts[bisect_right(self._starts, tag) - 1] - 1  # the open one below it
        due = getattr(self._encoder, name)(tag, True, *arguments) or due
        self._settle_up_to(tag or self._last_received())
        return due

    def _settle_up_to(self, tag: int) -> None:
        self._swept = max(self._swept, tag)
        self._earlier = {each for each in self._earlier if each > tag}
        if tag >= self._low:
            self._low = tag + 1
            self._close_gap()
