"""Refusals that a test has asked for."""

from __future__ import annotations

from typing import Any

from pika import spec

from pika_twisted.testing.refusal import Refusal

#: What RabbitMQ would say with these codes, where a test gives no text.
_TEXTS = {
    403: "refused by the test",
    404: "not found, says the test",
    406: "precondition failed, says the test",
}

METHODS: dict[str, type[Any]] = {
    f"{cls.NAME.split('.')[0].lower()}.{_snake}": cls
    for cls in spec.methods.values()
    for _snake in [
        "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.NAME.split(".")[1])[1:]
    ]
}


class PlannedRefusals:
    """The next calls to refuse, by method."""

    def __init__(self) -> None:
        self._planned: list[tuple[type[Any], Refusal, dict[str, Any], int]] = []

    def add(
        self, method: str, code: int, text: str | None, times: int, fields: dict[str, Any]
    ) -> None:
        """Refuse the next `times` calls of a method whose arguments have these values.

        :raises ValueError: there is no such method
        """
        cls = METHODS.get(method)
        if cls is None:
            raise ValueError(f'method is one of AMQP\'s, as "queue.declare", not {method!r}')
        if text is None:
            text = _TEXTS.get(code)
        self._planned.append((cls, Refusal(code, text), fields, times))

    def take(self, method: Any) -> Refusal | None:
        """Return the refusal of a call, or None to carry it out."""
        for index, (cls, refusal, fields, times) in enumerate(self._planned):
            if isinstance(method, cls) and all(
                getattr(method, name, None) == value for name, value in fields.items()
            ):
                if times > 1:
                    self._planned[index] = (cls, refusal, fields, times - 1)
                else:
                    del self._planned[index]
                return refusal
        return None
