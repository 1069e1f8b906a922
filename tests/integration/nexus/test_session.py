"""Sessions pass bytes through Redis in order and with bounded memory, and their keys expire."""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from galaxy.errors import BadMessage, Conflict, Unreachable
from galaxy.nexus import Nexus
from galaxy.nexus.connection import open_client
from galaxy.nexus.presence import ABSENCE_S, LEASE_S
from galaxy.nexus.session import ITEM_BYTES_MAX, ITEMS_MAX, TTL_S, Frame, FrameHead, Session
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


@pytest.fixture
def nexus(redis_server: RedisServer) -> Iterator[Nexus]:
    nexus = Nexus.connect(redis_server.url, name="session")
    yield nexus
    nexus.close()


@pytest.fixture
def ends(nexus: Nexus) -> tuple[Session, Session]:
    return nexus.session("s1"), nexus.session("s1")


def test_items_arrive_in_order_and_unchanged(ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    items = [bytes([n]) * (n + 1) for n in range(50)] + [b"\x00\xff\n", b"x" * ITEM_BYTES_MAX]
    for item in items:
        writer.write("out", item)
    assert [reader.read("out", 1.0) for _ in items] == items
    assert reader.read("out", 0.02) is None


def test_items_of_each_direction_are_separate(ends: tuple[Session, Session]) -> None:
    a, b = ends
    a.write("in", b"question")
    a.write("out", b"answer")
    assert b.read("out", 1.0) == b"answer"
    assert b.read("in", 1.0) == b"question"


def test_waiting_reader_gets_an_item_within_milliseconds(ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    times_ms: list[float] = []

    def echo() -> None:
        while item := reader.read("in", 10.0):
            reader.write("out", item)

    thread = threading.Thread(target=echo)
    thread.start()
    for _ in range(100):
        start_s = time.perf_counter()
        writer.write("in", b"x")
        assert writer.read("out", 10.0) == b"x"
        times_ms.append((time.perf_counter() - start_s) * 1000)
    writer.close("in")
    thread.join(10.0)
    assert not thread.is_alive()
    print(f"\nsession round trip: median {statistics.median(times_ms):.2f} ms")
    assert statistics.median(times_ms) < 50


def test_writer_waits_while_the_reader_is_far_behind_and_continues_when_it_reads(
    ends: tuple[Session, Session],
) -> None:
    writer, reader = ends
    count = ITEMS_MAX * 3
    thread = threading.Thread(target=lambda: [writer.write("out", b"%d" % n, 30.0) for n in range(count)])
    thread.start()
    assert [reader.read("out", 10.0) for _ in range(count)] == [b"%d" % n for n in range(count)]
    thread.join(10.0)
    assert not thread.is_alive()


def test_writer_without_a_reader_fails_in_time_and_the_list_stays_bounded(
    nexus: Nexus, ends: tuple[Session, Session]
) -> None:
    writer, _ = ends
    for _ in range(ITEMS_MAX):
        writer.write("out", b"x", 0.1)
    with pytest.raises(Unreachable, match="took nothing"):
        writer.write("out", b"x", 0.1)
    assert nexus.client.llen("galaxy:session:s1:out") == ITEMS_MAX


def test_closed_direction_stays_ended_after_its_last_item(ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    writer.write("out", b"last")
    writer.close("out")
    assert [reader.read("out", 1.0) for _ in range(3)] == [b"last", b"", b""]
    with pytest.raises(Conflict):
        writer.write("out", b"more")


def test_blocked_reader_returns_when_the_direction_is_closed(ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    got: list[bytes | None] = []
    thread = threading.Thread(target=lambda: got.append(reader.read("out", 30.0)))
    thread.start()
    until("the reader is attached", lambda: writer.has_reader("out"), every_s=0.005)
    writer.close("out")
    thread.join(20.0)
    assert got == [b""]


def test_direction_closed_by_its_reader_stops_a_waiting_writer(ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    failed: list[Exception] = []

    def write_forever() -> None:
        try:
            while True:
                writer.write("out", b"x", 30.0)
        except Conflict as error:
            failed.append(error)

    thread = threading.Thread(target=write_forever)
    thread.start()
    assert reader.read("out", 5.0) == b"x"
    reader.close("out")
    thread.join(10.0)
    assert len(failed) == 1
    assert writer.is_closed("out")


def test_writer_sees_whether_a_reader_is_attached(ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    assert not writer.has_reader("out")
    reader.read("out", 0.02)
    assert writer.has_reader("out")
    assert not writer.has_reader("in")


def test_frames_of_any_length_arrive_complete(ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    data = os.urandom(ITEM_BYTES_MAX * 2 + 17)
    writer.send("out", Frame(head=FrameHead(kind="stdout"), data=data))
    writer.send("out", Frame(head=FrameHead(kind="exit", status=3)))
    got = b""
    while (frame := reader.receive("out", 5.0)) is not None and frame.head.kind == "stdout":
        got += frame.data
    assert got == data
    assert frame is not None and (frame.head.kind, frame.head.status) == ("exit", 3)
    writer.close("out")
    end = reader.receive("out", 5.0)
    assert end is not None and end.head.kind == "eof"


def test_item_that_is_not_a_frame_is_a_bad_message(ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    writer.write("out", b"no frame")
    with pytest.raises(BadMessage):
        reader.receive("out", 1.0)


@pytest.mark.parametrize("size", [0, ITEM_BYTES_MAX + 1])
def test_item_that_is_empty_or_too_long_is_refused(ends: tuple[Session, Session], size: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        ends[0].write("out", b"x" * size)


def test_keys_of_a_session_expire_and_can_be_removed(nexus: Nexus, ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    for _ in range(ITEMS_MAX):
        writer.write("out", b"x")
    with pytest.raises(Unreachable):
        writer.write("out", b"x", 0.05)
    reader.read("out", 1.0)
    writer.close("in")
    keys = nexus.client.keys("galaxy:session:*")
    assert len(keys) >= 4
    assert all(0 < nexus.client.ttl(key) <= TTL_S for key in keys)
    reader.remove()
    assert all(key.endswith(b":closed") for key in nexus.client.keys("galaxy:session:*"))


def test_every_item_arrives_once_though_connections_end_again_and_again(
    redis_server: RedisServer, nexus: Nexus
) -> None:
    # Of each kind of connection that ends in the middle, some carried a command out whose answer is lost.
    writer, reader = nexus.session("s1"), nexus.session("s1")
    killer = redis.Redis.from_url(redis_server.url)
    ended = threading.Event()

    def end_connections() -> None:
        while not ended.wait(0.02):
            killer.execute_command("CLIENT", "KILL", "TYPE", "normal")

    items = [b"%d" % number for number in range(2 * ITEMS_MAX)]
    failed: list[Exception] = []

    def write() -> None:
        try:
            for item in items:
                writer.write("out", item)
        except Exception as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=end_connections), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    got: list[bytes] = []
    try:
        while len(got) < len(items) and not failed:
            if (item := reader.read("out", 10.0)) is not None:
                got.append(item)
    finally:
        ended.set()
        for thread in threads:
            thread.join(30.0)
        killer.close()
    assert failed == []
    assert got == items
    assert writer.was_away(60) or reader.was_away(60)


def test_items_pass_once_redis_answers_again_and_fail_when_it_does_not(redis_server: RedisServer) -> None:
    with contextlib.closing(open_client(redis_server.url, name="session", socket_s=0.5)) as client:
        writer, reader = Session(client, "r", "s1"), Session(client, "r", "s1")
        writer.write("out", b"before")
        assert reader.read("out", 0.3) == b"before"
        redis_server.pause()
        thread = threading.Thread(target=writer.write, args=("out", b"after"))
        thread.start()
        assert reader.read("out", 0.3) is None
        assert reader.was_away(60)
        redis_server.resume()
        assert until("it arrives", lambda: reader.read("out", 0.3)) == b"after"
        thread.join(20.0)
        redis_server.pause()
        start_s = time.monotonic()
        with pytest.raises(Unreachable):
            while time.monotonic() - start_s < 3 * ABSENCE_S:
                reader.read("out", 0.3)
        assert time.monotonic() - start_s >= ABSENCE_S
        redis_server.resume()


def test_writer_fails_when_redis_has_lost_the_session(nexus: Nexus, ends: tuple[Session, Session]) -> None:
    writer, reader = ends
    writer.write("out", b"one")
    writer.write("out", b"two")
    assert reader.read("out", 5.0) == b"one"
    nexus.client.flushall()
    with pytest.raises(Unreachable, match="lost session"):
        writer.write("out", b"three")


def test_second_writer_of_a_direction_is_refused(nexus: Nexus) -> None:
    nexus.session("s1").write("out", b"one")
    with pytest.raises(Conflict, match="another process"):
        nexus.session("s1").write("out", b"again")


def test_unread_items_do_not_expire_while_the_agent_renews_its_lease(
    nexus: Nexus, ends: tuple[Session, Session]
) -> None:
    writer, _ = ends
    writer.write("out", b"x")
    for name in nexus.client.keys("galaxy:session:*"):
        nexus.client.expire(name, 5)
    writer.peer()
    assert all(nexus.client.ttl(name) > 200 for name in nexus.client.keys("galaxy:session:s1:out*"))


def test_presence_of_a_suspended_client_lasts_until_it_goes_on(nexus: Nexus) -> None:
    session = nexus.session("s1")
    presence = session.attend()
    until("it is there", lambda: session.peer().leased and session.peer().subscribed)
    presence.suspend()
    assert nexus.client.ttl("galaxy:session:s1:client") > LEASE_S
    presence.resume()
    assert nexus.client.ttl("galaxy:session:s1:client") <= LEASE_S
    presence.close()
