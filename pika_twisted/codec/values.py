"""Field values that need more than a type of Python's to keep their type on the wire."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

try:
    # pika 1.3 and 1.4 mark 64-bit integers with this class, to send them as 64 bits again.
    from pika.compat import long as _long_long
except ImportError:

    class _LongLong(int):
        """An integer that was received as 64 bits, and is sent as 64 bits again."""

    _long_long = _LongLong  # type: ignore[misc, assignment]

LongLong: type[int] = _long_long


class Timestamp(int):
    """Seconds of a timestamp beyond year 9999, where `datetime` ends; sent as a timestamp again.

    Some publishers send milliseconds.
    """


def timestamp_of(seconds: int) -> datetime | Timestamp:
    """Return the value of a timestamp field."""
    # Not datetime.fromtimestamp(): that ends where the platform's time_t does.
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return Timestamp(seconds)


def decimal_of(scale: int, unscaled: int) -> Decimal:
    """Return the value of a decimal field."""
    # From a tuple: exact whatever the precision of the caller's decimal context.
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((int(unscaled < 0), digits, -scale))


def decimal_parts(value: Decimal) -> tuple[int, int]:
    """Return scale and unscaled value of a decimal field, exactly as `value` has them.

    Trailing zeros of the fraction are dropped only where the field could not hold them.

    :raises ValueError: the field can't hold the value
    """
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is no finite number")
    if not any(digits):
        return min(max(-exponent, 0), 255), 0
    while exponent < 0 and digits[-1] == 0 and (exponent < -255 or not _fits(digits, sign)):
        digits, exponent = digits[:-1], exponent + 1
    if 0 < exponent <= 10:
        digits, exponent = (*digits, *(0,) * exponent), 0
    if not -255 <= exponent <= 0 or not _fits(digits, sign):
        raise ValueError(f"{value} has not the form of an integer of 32 bits / 10 ** (0 to 255)")
    return -exponent, _integer(digits, sign)


def _integer(digits: tuple[int, ...], sign: int) -> int:
    number = int("".join(map(str, digits)))
    return -number if sign else number


def _fits(digits: tuple[int, ...], sign: int) -> bool:
    """Whether the digits make an integer of 32 bits."""
    leading = next(i for i, digit in enumerate(digits) if digit)
    return len(digits) - leading <= 10 and -(1 << 31) <= _integer(digits, sign) < 1 << 31
