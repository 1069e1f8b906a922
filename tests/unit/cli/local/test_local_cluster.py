"""Which server a cluster's folder goes with."""

from galaxy.cli.local.layout import ClusterPlan
from galaxy.cli.local.local_cluster import UpOptions, with_saved_server

OTHERS = ClusterPlan(password="p", agents=(), redis_url="redis://:secret@db:6379/0")
OWN = ClusterPlan(password="p", agents=(), redis_port=6400)


def test_folder_used_with_somebody_elses_server_goes_with_it_again() -> None:
    assert with_saved_server(UpOptions(dir="/d"), OTHERS).redis == OTHERS.redis_url


def test_server_that_is_named_wins_over_the_one_remembered() -> None:
    assert (
        with_saved_server(UpOptions(dir="/d", redis="redis://new:6379/0"), OTHERS).redis
        == "redis://new:6379/0"
    )
    assert with_saved_server(UpOptions(dir="/d", server="embedded"), OTHERS).redis == ""


def test_folder_with_a_server_of_its_own_or_none_yet_names_nobody_elses() -> None:
    assert with_saved_server(UpOptions(dir="/d"), OWN).redis == ""
    assert with_saved_server(UpOptions(dir="/d"), None).redis == ""
