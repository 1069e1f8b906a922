"""Other releases of Galaxy, derived from this one: older, newer, and incompatible.

A release is a copy of the package in a folder of its own, to be put first in PYTHONPATH. The *newer*
one has an additional field in every struct that it sends or stores, sends messages of unknown kinds, and
also reads the next wire version and stored format. The *incompatible* one knows only later versions.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import galaxy

NOVEL_FIELDS = '''

def _novel(value: Any) -> Any:
    """Return ``value`` as plain values, with an additional field in every struct."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        plain = {} if config.tag is None else {config.tag_field: config.tag}
        for field in msgspec.structs.fields(value):
            inner, default = getattr(value, field.name), field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            if default is msgspec.NODEFAULT or inner != default:
                plain[field.encode_name] = _novel(inner)
        return plain | {"novelty": {"since": 2}}
    if isinstance(value, dict):
        return {key: _novel(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_novel(inner) for inner in value]
    return value
'''
NOVEL_PACKET = 'b\'{"type":"novelty","values":["unknown"]}\''


def older(folder: Path) -> Path:
    """Return the folder of an earlier release."""
    return _copy(folder, "0.3.0rc1")


def newer(folder: Path) -> Path:
    """Return the folder of the next release."""
    root = _copy(folder, "0.4.0")
    base = root / "galaxy/model/base.py"
    _edit(base, "return _ENCODER.encode(value)", "return _ENCODER.encode(_novel(value))")
    _edit(base, "WIRE_READABLE: Final = range(3, 4)", "WIRE_READABLE: Final = range(3, 5)")
    base.write_text(base.read_text() + NOVEL_FIELDS)
    _edit(root / "galaxy/driver/stored_format.py", "range(3, 4)", "range(3, 5)")
    _edit(root / "galaxy/agent/connections/worker_connection.py", "        self.malformed = 0\n",
          f"        self.malformed = 0\n        self._queue.append(({NOVEL_PACKET}, ()))\n")  # fmt: skip
    _edit(root / "galaxy/container/launcher/client.py", "        self._socket = sock\n",
          f"        self._socket = sock\n        sock.send({NOVEL_PACKET})\n")  # fmt: skip
    return root


def incompatible(folder: Path) -> Path:
    """Return the folder of a release that shares no version with this one."""
    root = _copy(folder, "0.9.0")
    base = root / "galaxy/model/base.py"
    _edit(base, "WIRE_VERSION: Final = 3", "WIRE_VERSION: Final = 5")
    _edit(base, "WIRE_READABLE: Final = range(3, 4)", "WIRE_READABLE: Final = range(5, 6)")
    stored = root / "galaxy/driver/stored_format.py"
    _edit(stored, "STORED_FORMAT: Final = 3", "STORED_FORMAT: Final = 5")
    _edit(stored, "range(3, 4)", "range(5, 6)")
    return root


def _copy(folder: Path, version: str) -> Path:
    shutil.copytree(
        Path(galaxy.__file__).parent, folder / "galaxy", ignore=shutil.ignore_patterns("__pycache__")
    )
    _edit(folder / "galaxy/__init__.py", f'"{galaxy.__version__}"', f'"{version}"')
    return folder


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} has changed: {old!r} is not in it"
    path.write_text(text.replace(old, new, 1))
