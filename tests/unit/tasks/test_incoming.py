"""A worker parses an item of its queues into a message, or drops it with a reason."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from kombu.utils import json as kombu_json

from galaxy.model.base import WIRE_VERSION
from galaxy.model.messages import names
from galaxy.model.messages.container import ContainerOrders
from galaxy.model.step import Send
from galaxy.nexus.envelope import CALL_TYPE, Payload, celery_message, decode_call, read, utc_now
from galaxy.tasks.incoming import UnacceptableItem, parse_item
from tests.support.malformed_messages import (
    call_of,
    celery_headers,
    celery_item,
    galaxy_item,
    malformed_items,
)

TASK = names.CONTAINER_APPLY
ORDERS = ContainerOrders(agent="h1", epoch=3, until_s=1.5)
PLAIN = {"agent": "h1", "epoch": 3, "until_s": 1.5}


def item_of(orders: ContainerOrders = ORDERS, expires_s: float = 60.0) -> tuple[str, bytes]:
    send = Send(queue="agent.h1", task=TASK, body=orders, id="order:1", expires_s=expires_s)
    return celery_message(send, now=utc_now(), origin="resman@h1")


def struct_of(message: dict[str, Any]) -> ContainerOrders:
    _, arguments, _ = decode_call(message["body"])
    return read(arguments["v"], arguments["body"], ContainerOrders)


def test_message_of_galaxy_is_parsed_with_its_struct() -> None:
    queue, item = item_of()
    message = parse_item(item, queue)
    assert (queue, message["headers"]["task"], message["headers"]["id"]) == ("agent.h1", TASK, "order:1")
    assert message["content-type"] == CALL_TYPE
    assert struct_of(message) == ORDERS


def test_struct_is_plain_json_inside_the_item() -> None:
    _, item = item_of()
    assert json.loads(item)["body"][1] == {"v": WIRE_VERSION, "body": PLAIN}


@pytest.mark.parametrize("shape", [celery_item, galaxy_item])
def test_message_of_celerys_own_shape_is_read_too(shape: Any) -> None:
    item = shape(call_of(PLAIN), queue="agent.h1", headers=celery_headers(TASK))
    assert struct_of(parse_item(item, "agent.h1")) == ORDERS


@pytest.mark.parametrize("shape", [celery_item, galaxy_item])
def test_type_markers_of_kombus_decoder_stay_plain_data(shape: Any) -> None:
    plain = PLAIN | {"novelty": {"__type__": "uuid", "__value__": {"hex": "0" * 32}}}
    message = parse_item(shape(call_of(plain), queue="q", headers=celery_headers(TASK)), "q")
    _, arguments, _ = decode_call(message["body"])
    assert json.loads(arguments["body"].text) == plain
    assert struct_of(message) == ORDERS


def test_message_put_back_by_kombu_is_read_again_unchanged() -> None:
    queue, item = item_of()
    message = parse_item(item, queue)
    stored = kombu_json.loads(kombu_json.dumps(message))  # As kombu keeps it until it is acknowledged.
    stored["headers"]["redelivered"] = True
    again = parse_item(kombu_json.dumps(stored).encode(), queue)
    assert again == message


def test_message_is_put_back_into_the_queue_that_it_came_from_not_the_one_it_names() -> None:
    item = galaxy_item(call_of(PLAIN), queue="resman", headers=celery_headers(TASK))
    assert parse_item(item, "agent.h1")["properties"]["delivery_info"]["routing_key"] == "agent.h1"


def test_message_is_dropped_as_expired_only_after_a_margin_for_clock_differences() -> None:
    parse_item(item_of(expires_s=-60.0)[1], "agent.h1")
    with pytest.raises(UnacceptableItem, match="expired"):
        parse_item(item_of(expires_s=-timedelta(hours=1).total_seconds())[1], "agent.h1")


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        (names.GROUP_APPLY, "resman"),
        (names.GROUP_STATUS, "appmaster"),
        ("galaxy.safemode.set", "resman.leaders"),
        ("galaxy.job.list", "appmaster.leaders"),
    ],
)
def test_message_in_a_queue_that_others_can_write_to_is_dropped(task: str, queue: str) -> None:
    item = galaxy_item(call_of({}), queue=queue, headers=celery_headers(task))
    with pytest.raises(UnacceptableItem) as caught:
        parse_item(item, queue)
    assert caught.value.cause == "wrong-queue"


def test_payload_shows_its_size_and_nothing_else() -> None:
    payload = Payload(b'{"env":{"TOKEN":"s3cret"}}')
    shown = kombu_json.dumps({"kwargs": {"v": WIRE_VERSION, "body": payload}}) + repr(payload)
    assert "s3cret" not in shown
    assert "<26 bytes>" in shown


def test_malformed_item_is_dropped_unless_only_its_call_or_struct_is_wrong() -> None:
    accepted = []
    for what, item in malformed_items("agent.h1", TASK):
        try:
            message = parse_item(item, "agent.h1")
        except UnacceptableItem as error:
            assert error.cause and error.facts["why"]
            continue
        assert isinstance(message["body"], str)
        accepted.append(what)
    assert {what.partition(",")[0] for what in accepted} == {
        "an unknown task",
        "another version",
        "the version before",
        "a version that is true",
        "a version of a foreign type",
        "no arguments",
        "a strange time limit",
        "a struct that is a number",
        "a struct that is text",
        "a struct of a foreign type",
        "a struct of 17 MB",
        "an unknown field",
    }
