"""Damaged and malicious archives are refused, or write nothing outside their destination.

Every attempt unpacks into ``inside``, next to a file that must not change. A refused archive leaves
the destination unchanged, except for the directory with Galaxy's own files.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy.model.jobspec.spec import PackageSpec
from galaxy.worker_entry import unpack
from galaxy.worker_entry.package_files import UnpackFailed, place
from galaxy.worker_entry.unpack import stage
from tests.property.effort import examples

PACKAGE = PackageSpec(source="p", version="1")
MIB = 1024**2


@contextmanager
def destination() -> Iterator[Path]:
    """Yield a new directory with a file ``outside`` and the destination ``inside``."""
    with tempfile.TemporaryDirectory(prefix="galaxy-archive-") as name:
        top = Path(name)
        (top / "outside").write_text("mine")
        (top / "inside").mkdir()
        (top / "inside" / "kept").write_text("kept")
        yield top


def attempt(top: Path, data: bytes) -> str:
    """Unpack and place ``data``, and check all invariants; return why it was refused, or ""."""
    fd = os.memfd_create("archive")
    opened = len(os.listdir("/proc/self/fd"))
    why = ""
    try:
        os.write(fd, data) if data else None
        stage("main", str(top / "inside"), [(PACKAGE, fd)])
        place("main", str(top / "inside"), [PACKAGE])
    except UnpackFailed as failed:
        why = str(failed)
        assert not failed.retry, failed
    finally:
        assert len(os.listdir("/proc/self/fd")) == opened
        os.close(fd)
    assert (top / "outside").read_text() == "mine"
    assert sorted(os.listdir(top)) == ["inside", "outside"]
    rest = sorted(os.listdir(top / "inside" / ".galaxy"))
    assert rest == ([] if why else ["main.json"]), rest
    if why:
        assert sorted(os.listdir(top / "inside")) == [".galaxy", "kept"]
        assert (top / "inside" / "kept").read_text() == "kept"
    for path in (top / "inside").rglob("*"):
        facts = path.lstat()
        assert stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode) or stat.S_ISLNK(facts.st_mode)
        assert not facts.st_mode & (stat.S_ISUID | stat.S_ISGID)
        if path.is_symlink():
            target = os.path.normpath(path.parent / os.readlink(path))
            assert target == str(top / "inside") or target.startswith(f"{top}/inside/"), target
    return why


def info(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0, mode: int = 0o644
) -> tarfile.TarInfo:
    one = tarfile.TarInfo(name)
    one.type, one.linkname, one.size, one.mode = kind, link, size, mode
    return one


def tar(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for one, content in members:
            one.size = len(content) if one.type == tarfile.REGTYPE else one.size
            archive.addfile(one, io.BytesIO(content))
    return out.getvalue()


def zipped(*members: tuple[str, int, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, content in members:
            one = zipfile.ZipInfo(name)
            one.create_system, one.external_attr = 3, mode << 16
            archive.writestr(one, content)
    return out.getvalue()


FILES = [
    (info("a/b"), b"hello" * 300),
    (info("c", mode=0o755), b"#!/bin/sh\n"),
    (info("d", tarfile.SYMTYPE, "c"), b""),
]
VALID = {
    "tar": tar(*FILES),
    "gz": tar(*FILES, mode="w:gz"),
    "bz2": tar(*FILES, mode="w:bz2"),
    "xz": tar(*FILES, mode="w:xz"),
    "zip": zipped(("a/b", 0o100644, b"hello" * 300), ("c", 0o100755, b"#!/bin/sh\n"), ("d", 0o120777, b"c")),
}


@pytest.mark.parametrize("kind", VALID)
def test_valid_archive_is_unpacked(kind: str) -> None:
    with destination() as top:
        assert attempt(top, VALID[kind]) == ""
        assert (top / "inside/a/b").read_bytes() == b"hello" * 300
        assert os.readlink(top / "inside/d") == "c"


@pytest.mark.parametrize("kind", VALID)
def test_archive_cut_at_any_length_is_refused(kind: str) -> None:
    """Also when all data are there and only the checksum is cut off."""
    data = VALID[kind]
    step = max(1, len(data) // 400)
    with destination() as top:
        for length in [*range(0, len(data), step), *range(max(0, len(data) - 40), len(data))]:
            if not attempt(top, data[:length]):
                # Beyond its end mark a tar holds nothing but zeros.
                assert kind == "tar" and not data[length - 512 :].strip(b"\0"), f"{length} bytes passed"
                place("main", str(top / "inside"), [])
            assert sorted(os.listdir(top / "inside")) == [".galaxy", "kept"]
            (top / "inside/.galaxy/main.json").unlink(missing_ok=True)


@examples(300)
@given(st.sampled_from(sorted(VALID)), st.data())
def test_archive_with_any_bytes_changed_writes_nothing_outside_its_destination(
    kind: str, data: st.DataObject
) -> None:
    changed = bytearray(VALID[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"../../", b"7777777777"])
        )
        changed = changed or bytearray(b"\0")
    with destination() as top:
        attempt(top, bytes(changed))


INVALID = {
    "a name with ..": tar((info("../outside"), b"x")),
    "a name with .. in a directory": tar((info("a/../../outside"), b"x")),
    "an absolute name": tar((info("/tmp/galaxy-outside"), b"x")),
    "Galaxy's own directory": tar((info(".galaxy/main.json"), b"x")),
    "Galaxy's own directory after ./": tar((info("./.galaxy/main.json"), b"x")),
    "an absolute link": tar((info("l", tarfile.SYMTYPE, "/etc"), b"")),
    "a link to ..": tar((info("l", tarfile.SYMTYPE, "../outside"), b"")),
    "a link to .. in a directory": tar((info("a/l", tarfile.SYMTYPE, "../../outside"), b"")),
    "a hard link to ..": tar((info("l", tarfile.LNKTYPE, "../outside"), b"")),
    "an absolute hard link": tar((info("l", tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "a hard link to nothing": tar((info("l", tarfile.LNKTYPE, "nothing"), b"")),
    "a character device": tar((info("null", tarfile.CHRTYPE), b"")),
    "a block device": tar((info("disk", tarfile.BLKTYPE), b"")),
    "a pipe": tar((info("pipe", tarfile.FIFOTYPE), b"")),
    "a file through a link": tar((info("l", tarfile.SYMTYPE, "."), b""), (info("l/x"), b"x")),
    "a file below a file": tar((info("f"), b"x"), (info("f/x"), b"x")),
    "a damaged header in the middle": VALID["tar"].replace(b"c\0\0\0", b"d\0\0\0", 1),
    "no end mark": VALID["tar"].rstrip(b"\0") + b"\0" * (-len(VALID["tar"].rstrip(b"\0")) % 512),
    "a wrong checksum of gzip": VALID["gz"][:-8] + b"\0\0\0\0" + VALID["gz"][-4:],
    "a wrong length of gzip": VALID["gz"][:-4] + b"\0\0\0\0",
    "64 MiB of zeros after its end": gzip.compress(VALID["tar"] + bytes(64 * MIB)),
    "a hard link through a link": tar(
        (info("f"), b"x"), (info("l", tarfile.SYMTYPE, "."), b""), (info("h", tarfile.LNKTYPE, "l/f"), b"")
    ),
    "a hard link to a link": tar(
        (info("l", tarfile.SYMTYPE, "kept"), b""), (info("h", tarfile.LNKTYPE, "l"), b"")
    ),
    "a long name": tar((info("n" * 300), b"x")),
    "a deep name": tar((info("/".join(["d" * 200] * 30)), b"x")),
    "a local header alone": b"PK\x03\x04" + b"\0" * 40,
    "a zip with .. in a name": zipped(("../outside", 0o100644, b"x")),
    "a zip with an absolute name": zipped(("/tmp/galaxy-outside", 0o100644, b"x")),
    "a zip with an absolute link": zipped(("l", 0o120777, b"/etc/passwd")),
    "a zip with a link to ..": zipped(("a/l", 0o120777, b"../../outside")),
    "a zip with a long link": zipped(("l", 0o120777, b"x" * 5000)),
    "a zip with a link that is not UTF-8": zipped(("l", 0o120777, b"\xff\xfe")),
    "a zip with an empty link": zipped(("l", 0o120777, b"")),
    "a zip with a NUL in a link": zipped(("l", 0o120777, b"a\0b")),
    "a zip with a file through a link": zipped(("l", 0o120777, b"."), ("l/x", 0o100644, b"x")),
    "a zip with a device": zipped(("null", 0o020666, b"")),
    "a zip with a pipe": zipped(("pipe", 0o010666, b"")),
    "a zip with a socket": zipped(("sock", 0o140666, b"")),
    "nothing": b"",
    "an HTML page": b"<html>404 Not Found</html>",
    "only the first bytes of a zip": b"PK",
    "the end of a zip without the rest": b"PK\x05\x06" + b"\xff" * 18,
    "zeros": b"\0" * 512,
    "a gzip of nothing": gzip.compress(b""),
    "a gzip of a gzip": gzip.compress(gzip.compress(VALID["tar"])),
    "an xz of noise": lzma.compress(os.urandom(2000)),
    "a bz2 of an HTML page": bz2.compress(b"<html>"),
}


@pytest.mark.parametrize("what", INVALID)
def test_invalid_archive_is_refused_and_leaves_nothing(what: str) -> None:
    with destination() as top:
        why = attempt(top, INVALID[what])
        assert bool(why) == (what != "zeros")  # Zeros are a valid tar without members.


def test_setuid_and_setgid_bits_are_removed_and_the_owner_can_read_and_write(tmp_path: Path) -> None:
    with destination() as top:
        assert attempt(top, tar((info("s", mode=0o6777), b"x"), (info("n", mode=0), b"x"))) == ""
        assert stat.S_IMODE((top / "inside/s").stat().st_mode) == 0o755
        assert (top / "inside/n").stat().st_mode & 0o600 == 0o600


def test_later_member_replaces_an_earlier_one_of_the_same_name_and_any_type() -> None:
    for first, second in ((tarfile.REGTYPE, tarfile.SYMTYPE), (tarfile.SYMTYPE, tarfile.REGTYPE)):
        with destination() as top:
            link = "kept"
            assert attempt(top, tar((info("x", first, link), b""), (info("x", second, link), b""))) == ""
            assert (top / "inside/x").is_symlink() == (second == tarfile.SYMTYPE)
    with destination() as top, pytest.warns(UserWarning, match="Duplicate"):
        assert attempt(top, zipped(("x", 0o100644, b"1"), ("x", 0o100644, b"2"))) == ""
        assert (top / "inside/x").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["é", "日本", "a b\tc", "\udcff", "x\ny", "-rf", "\u202egpj", "A" * 255])
def test_unusual_names_are_unpacked_unchanged(name: str) -> None:
    with destination() as top:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", encoding="utf-8", errors="surrogateescape") as archive:
            archive.addfile(info(name))
        assert attempt(top, out.getvalue()) == ""
        assert name in os.listdir(top / "inside")


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_gnu_and_pax_format_are_unpacked(format: int) -> None:
    name = "/".join(["d" * 120] * 3)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=format) as archive:
        archive.addfile(info(name))
        archive.addfile(info("l", tarfile.SYMTYPE, name))
    with destination() as top:
        assert attempt(top, out.getvalue()) == ""
        assert (top / "inside" / "l").is_file()


def declared(name: str, size: int) -> bytes:
    """Return a tar with one member of 512 bytes that declares ``size`` bytes."""
    header = bytearray(info(name).tobuf(tarfile.GNU_FORMAT))
    field = size.to_bytes(12, "big")
    header[124:136] = bytes([field[0] | 0x80]) + field[1:]
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + b"x" * 512


@pytest.mark.parametrize("size", [1024, 2**33, 2**62, 2**80])
def test_member_that_declares_more_bytes_than_it_has_is_refused(size: int) -> None:
    with destination() as top:
        assert attempt(top, declared("huge", size))


def sparse(size: int) -> bytes:
    """Return a tar in GNU's sparse format: a file of ``size`` bytes without data."""
    header = bytearray(info("sparse", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:398] = b"%011o\0" % size  # One hole of length 0 at the end.
    header[398:410] = b"%011o\0" % 0
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + b"\0" * 1024


@pytest.fixture
def small_volume() -> Iterator[int]:
    """Limit files to 32 MiB, as a volume of that size would."""
    import resource
    import signal

    limit = 32 * MIB
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, handler)


def zeros(count: int, *, wrap: str) -> bytes:
    """Return an archive of one file of ``count`` zeros, which is a thousand times smaller."""
    if wrap == "zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as member:
            for _ in range(count // MIB):
                member.write(bytes(MIB))
        return out.getvalue()
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(info("zeros", size=count).tobuf())]
    parts += [packer.compress(bytes(MIB)) for _ in range(count // MIB)]
    return b"".join([*parts, packer.compress(bytes(1024)), packer.flush()])


@pytest.mark.parametrize("wrap", ["zip", "gz"])
def test_decompression_bomb_larger_than_its_volume_is_refused_and_leaves_nothing(
    wrap: str, small_volume: int
) -> None:
    bomb = zeros(64 * MIB, wrap=wrap)
    assert len(bomb) < MIB
    with destination() as top:
        assert "too large" in attempt(top, bomb)


def test_sparse_file_larger_than_its_volume_is_refused_and_leaves_nothing(small_volume: int) -> None:
    with destination() as top:
        assert attempt(top, sparse(2**32))


def test_zip_whose_entries_share_their_data_is_refused(small_volume: int) -> None:
    """Many directory entries refer to the same data (Fifield, "A better zip bomb", 2019)."""
    one = zipped(("a", 0o100644, bytes(4 * MIB)))
    end = one.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", one[end + 16 : end + 20])[0]
    entry = one[start:end]
    entries = b"".join(entry.replace(b"a", bytes([97 + n]), 1) for n in range(26))
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 26, 26, len(entries), start, 0)
    with destination() as top:
        assert attempt(top, one[:start] + entries + tail)


def test_more_members_than_are_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MEMBERS_MAX", 50)
    many_tar = tar(*[(info(f"f{n}"), b"") for n in range(60)])
    many_zip = zipped(*[(f"f{n}", 0o100644, b"") for n in range(60)])
    for data in (many_tar, many_zip):
        with destination() as top:
            assert "more than 50 members" in attempt(top, data)


def test_hundred_thousand_tiny_files_are_unpacked_and_removed() -> None:
    data = tar(*[(info(f"{n % 100}/{n}"), b"") for n in range(100_000)], mode="w:gz")
    with destination() as top:
        assert attempt(top, data) == ""
        assert sum(len(files) for _, _, files in os.walk(top / "inside")) == 100_002
        place("main", str(top / "inside"), [])
        assert sorted(os.listdir(top / "inside")) == [".galaxy", "kept"]
