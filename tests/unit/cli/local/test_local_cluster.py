"""The choice of the server of a cluster that is started again."""

from galaxy.cli.local.layout import ClusterPlan
from galaxy.cli.local.local_cluster import UpOptions, with_saved_server

FOREIGN = ClusterPlan(password="p", agents=(), redis_url="redis://:secret@db:6379/0")
OWN = ClusterPlan(password="p", agents=(), redis_port=6400)


def test_folder_used_with_a_foreign_server_uses_it_again() -> None:
    assert with_saved_server(UpOptions(dir="/d"), FOREIGN).redis == FOREIGN.redis_url


def test_named_server_overrides_the_saved_one() -> None:
    assert (
        with_saved_server(UpOptions(dir="/d", redis="redis://new:6379/0"), FOREIGN).redis
        == "redis://new:6379/0"
    )
    assert with_saved_server(UpOptions(dir="/d", server="embedded"), FOREIGN).redis == ""


def test_folder_without_a_saved_foreign_server_uses_none() -> None:
    assert with_saved_server(UpOptions(dir="/d"), OWN).redis == ""
    assert with_saved_server(UpOptions(dir="/d"), None).redis == ""
