"""Millicores, bytes and seconds: parsed from what people write, and formatted for them."""

from __future__ import annotations

import re
from typing import Final

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3

_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTPE])?(?:i?B)?", re.IGNORECASE)
_CPU: Final = re.compile(r"(\d+)\s*m|(\d+(?:\.\d+)?)", re.IGNORECASE)
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_POWERS: Final = "KMGTPE"


def parse_bytes(text: str | int) -> int:
    """Read ``64M``, ``1.5G``, ``800MiB`` or a plain number of bytes; units are 1024-based.

    Raises:
        ValueError: ``text`` is not a size.
    """
    if isinstance(text, int):
        return text
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it like 512K, 64M or 2G")
    power = _POWERS.index(match[2].upper()) + 1 if match[2] else 0
    return int(float(match[1]) * 1024**power)


def parse_cpu(text: str | int | float) -> int:
    """Read ``250m`` (millicores), ``0.25`` or ``2`` (cores) as millicores.

    Raises:
        ValueError: ``text`` is not an amount of CPU.
    """
    if isinstance(text, int | float):
        return round(text * 1000)
    match = _CPU.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of CPU; write it like 250m or 0.25")
    return int(match[1]) if match[1] else round(float(match[2]) * 1000)


def parse_count(text: str) -> int:
    """Read a whole number in decimal digits; a sign is allowed.

    Raises:
        ValueError: ``text`` is not a whole number.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,4000}", text):
        raise ValueError("it must be a whole number, or none")
    return int(text)


def parse_duration(text: str | int | float) -> float:
    """Read ``30s``, ``1m30s``, ``250ms``, ``2h`` or a plain number of seconds.

    Raises:
        ValueError: ``text`` is not a duration.
    """
    if isinstance(text, int | float):
        return float(text)
    stripped = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        return float(stripped)
    match = _DURATION.fullmatch(stripped)
    if not stripped or match is None:
        raise ValueError(f"{text!r} is not a duration; write it like 500ms, 30s or 5m")
    days, hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds + millis / 1000


def format_bytes(count: int) -> str:
    """Return a size as text: ``64 MiB``, ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < 1024 or unit == "PiB":
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def format_cpu(milli: int) -> str:
    """Return millicores as text: ``250m`` below a core, ``1.5`` above."""
    return f"{milli}m" if milli < 1000 else f"{milli / 1000:g}"


def format_duration(seconds: float) -> str:
    """Return a duration as text in its two largest units: ``3d4h``, ``2m5s``, ``0.4s``."""
    if seconds < 10:
        return f"{seconds:.1f}s" if seconds != int(seconds) else f"{int(seconds)}s"
    left = int(seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2])


def counted(number: int, singular: str) -> str:
    """Return ``1 pod``, ``2 pods``."""
    return f"{number} {singular}" if number == 1 else f"{number} {singular}s"
