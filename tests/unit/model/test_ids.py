"""Ids of jobs, pods and containers."""

from __future__ import annotations

import pytest

from galaxy.ids import container_key, parse_container_key, pod_id, split_pod


def test_container_key_names_container_and_incarnation_and_is_parsed_back() -> None:
    assert container_key("web-1a2b3c.7", 3) == "web-1a2b3c.7_3"
    assert parse_container_key("web-1a2b3c.7_3") == ("web-1a2b3c.7", 3)


def test_container_id_with_underscores_is_parsed_at_the_last_one() -> None:
    assert parse_container_key("a_b.0_12") == ("a_b.0", 12)


@pytest.mark.parametrize("text", ["", "web.7", "_3", "web.7_", "web.7_x", "web.7_-1"])
def test_text_that_is_no_container_key_is_parsed_as_none(text: str) -> None:
    assert parse_container_key(text) is None


def test_pod_id_is_split_into_job_and_index() -> None:
    assert split_pod(pod_id("web-1a2b3c", 7)) == ("web-1a2b3c", 7)
