"""A connection's delayed calls: those of pika, on Twisted's reactor, and its own guard timer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika.adapters.utils import nbio_interface
from twisted.internet import error

if TYPE_CHECKING:
    # pika's stubs have none of the private names that these classes are about.
    from typing import Any as PikaConnection
else:
    from pika.connection import Connection as PikaConnection


class _TimerHandle(nbio_interface.AbstractTimerReference):
    """pika's face of a Twisted delayed call."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def cancel(self) -> None:
        """Cancel the call unless it has run or was cancelled."""
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                handle.cancel()
            except (error.AlreadyCalled, error.AlreadyCancelled):
                pass


class TimedConnection(PikaConnection):  # type: ignore[misc]
    """pika's connection, with what it asks an I/O loop for."""

    _transport: Any
    _reactor: Any = None
    _guard_timer: _TimerHandle | None = None

    def _guard(self, delay: float, expire: Callable[[], Any]) -> None:
        """Arm the connection's one guard timer: handshake, then close, then linger."""
        self._cancel_guard()
        self._guard_timer = self.call_later(delay, expire)

    def _cancel_guard(self) -> None:
        timer, self._guard_timer = self._guard_timer, None
        if timer is not None:
            timer.cancel()

    def call_later(self, delay: float, callback: Callable[..., Any]) -> _TimerHandle:
        """Run `callback` after `delay` seconds, on the connection's reactor."""
        return _TimerHandle(self._get_reactor().callLater(delay, callback))

    def seconds(self) -> float:
        """Return the time of the connection's reactor."""
        return float(self._get_reactor().seconds())

    def _adapter_remove_timeout(self, timeout_id: _TimerHandle) -> None:
        timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[..., Any]) -> None:
        self._get_reactor().callFromThread(callback)

    def _get_reactor(self) -> Any:
        """The reactor passed in, else the transport's, else the installed one, imported late."""
        if self._reactor is None:
            self._reactor = getattr(self._transport, "reactor", None)
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def _adapter_call_later(self, delay: float, callback: Callable[..., Any]) -> _TimerHandle:
        return self.call_later(delay, callback)
