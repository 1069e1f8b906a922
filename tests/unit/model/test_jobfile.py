"""From a tree to a job, or to everything that is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.errors import NotSupportedYet, SpecError
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.diagnostics import Mark
from galaxy.model.jobspec.parsing import load
from galaxy.model.jobspec.spec import CpuSpec, MemorySpec, PortSpec, VolumeSpec
from galaxy.model.jobspec.writing import to_tree
from galaxy.model.stored.secret import EnvFrom


def job(**task: Any) -> dict[str, Any]:
    whole = {"cpu": "250m", "memory": "64M", "start": "run"} | task
    return {"name": "web", "pod": {"tasks": [whole]}}


def texts(tree: Any) -> list[str]:
    return [str(diagnostic) for diagnostic in parsing.parse(tree).diagnostics]


def test_least_job_has_all_defaults() -> None:
    spec = parsing.load(job())
    assert spec.pod.tasks[0].name == "main"
    assert spec.pod.workspace == VolumeSpec(path="/home/galaxy", size=64 * 1024 * 1024)
    assert spec.deploy.replica == 1


@pytest.mark.parametrize(
    ("written", "read"),
    [("250m", 250), ("0.25", 250), (0.25, 250), (2, 2000), ("2", 2000), ({"millicores": 300}, 300)],
)
def test_cpu_is_read_in_millicores_or_cores(written: Any, read: int) -> None:
    assert parsing.load(job(cpu=written)).pod.tasks[0].cpu == CpuSpec(millicores=read)


@pytest.mark.parametrize("written", ["64M", "64MiB", 67108864, {"size": "64M"}, {"size": 67108864}])
def test_memory_is_read_with_units(written: Any) -> None:
    assert parsing.load(job(memory=written)).pod.tasks[0].memory == MemorySpec(size=64 * 1024 * 1024)


@pytest.mark.parametrize("written", ["http", {"name": "http"}, {"name": "http", "port": "dynamic"}])
def test_port_without_number_is_dynamic(written: Any) -> None:
    assert parsing.load(job(ports=[written])).pod.tasks[0].ports == (PortSpec(name="http"),)


def test_workspace_may_be_a_size_alone() -> None:
    tree = job()
    tree["pod"]["workspace"] = "300M"
    assert parsing.load(tree).pod.workspace.size == 300 * 1024 * 1024


@pytest.mark.parametrize("written", ["a, b", ["a", "b"]])
def test_pools_are_a_list_or_words_with_commas(written: Any) -> None:
    assert parsing.load(job() | {"deploy": {"pools": written}}).deploy.pools == ("a", "b")


def test_durations_are_read_with_units() -> None:
    spec = parsing.load(job() | {"deploy": {"interval": "1m30s", "stop_timeout": 5}})
    assert (spec.deploy.interval, spec.deploy.stop_timeout) == (90.0, 5.0)


def test_service_and_health_mean_the_only_port() -> None:
    task = parsing.load(job(ports=["http"], services=["web"], health="http")).pod.tasks[0]
    assert task.health is not None
    assert (task.services[0].port, task.health.port) == ("http", "http")


def test_whole_number_in_env_is_its_digits() -> None:
    assert parsing.load(job(env={"N": 8080})).pod.tasks[0].env == {"N": "8080"}


def test_five_mistakes_are_five_problems_in_order_of_the_file() -> None:
    tree = job(memory="64X", services=[{"name": "a", "port": "nope"}], env={"GALAXY_X": "1"})
    tree["deploy"] = {"replcia": 3, "max_per_host": -1}
    marks = {
        (): Mark(1, 1), ("deploy",): Mark(2, 1), ("deploy", "replcia"): Mark(3, 3),
        ("deploy", "max_per_host"): Mark(4, 3), ("pod", "tasks", 0, "memory"): Mark(9, 7),
        ("pod", "tasks", 0, "services", 0, "port"): Mark(11, 9),
        ("pod", "tasks", 0, "env", "GALAXY_X"): Mark(13, 9),
    }  # fmt: skip
    with pytest.raises(SpecError) as caught:
        parsing.load(tree, name="job.yaml", marks=marks)
    assert caught.value.message == 'cannot use job file "job.yaml": 5 problems'
    assert [line.split(" ")[0] for line in caught.value.details] == [
        "job.yaml:3:3:", "job.yaml:4:3:", "job.yaml:9:7:", "job.yaml:11:9:", "job.yaml:13:9:",
    ]  # fmt: skip
    assert "`deploy.replcia`: unknown field; did you mean `replica`?" in caught.value.details[0]


def test_misspelled_field_is_one_problem_and_not_missing_as_well() -> None:
    tree = job()
    tree["pod"]["tasks"][0]["memroy"] = tree["pod"]["tasks"][0].pop("memory")
    assert texts(tree) == ["`pod.tasks[0].memroy`: unknown field; did you mean `memory`?"]


@pytest.mark.parametrize(
    ("word", "ours"), [("mem", "memory"), ("start_cmd", "start"), ("exec_package", "package")]
)
def test_word_of_the_ancestor_suggests_ours(word: str, ours: str) -> None:
    assert texts(job(**{word: 1})) == [f"`pod.tasks[0].{word}`: unknown field; did you mean `{ours}`?"]


def test_field_in_the_wrong_place_is_told_where_it_belongs() -> None:
    assert texts(job() | {"replica": 3}) == ["`replica`: unknown field here; it belongs at `deploy.replica`"]


def test_unlike_field_lists_what_is_known() -> None:
    assert "known here: name, pod, type, deploy" in texts(job() | {"zzzz": 1})[0]


def test_limits_are_told_with_their_units() -> None:
    tree = job(memory="1M", cpu="1m")
    assert texts(tree) == [
        "`pod.tasks[0].cpu.millicores`: 1m is below the minimum of 10m",
        "`pod.tasks[0].memory.size`: 1 MiB is below the minimum of 4 MiB",
    ]


def test_number_for_text_says_to_quote_it() -> None:
    tree = job(package={"source": "a.tar.gz", "version": 1.1})
    assert texts(tree) == ["`pod.tasks[0].package.version`: must be text, not 1.1; put it in quotes"]


def test_near_miss_of_a_value_is_suggested() -> None:
    assert texts(job() | {"type": "servce"}) == ['`type`: "servce" is not known; did you mean `service`?']
    assert "did you mean `on-failure`?" in texts(job(restart="on_failure"))[0]


def test_true_is_no_number() -> None:
    assert "must be a whole number" in texts(job() | {"deploy": {"replica": True}})[0]
    assert "must be true or false" in texts(job(cpu={"millicores": 10, "excess": 1}))[0]


@pytest.mark.parametrize(
    "tree", [None, [], "x", 3, {"pod": []}, {"pod": {"tasks": {}}}, {"pod": {"tasks": [1]}}]
)
def test_wrong_shapes_are_told_and_never_raise(tree: Any) -> None:
    assert parsing.parse(tree).diagnostics


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("nan"), "9" * 400, 10**18])
def test_absurd_numbers_are_told_and_never_raise(number: Any) -> None:
    assert parsing.parse(job(memory=number)).diagnostics
    assert parsing.parse(job(cpu={"millicores": number})).diagnostics
    assert parsing.parse(job() | {"deploy": {"interval": number}}).diagnostics


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    assert "surrogate" in texts(job(start="\ud800"))[0]
    assert "surrogate" in texts(job(env={"A": "\ud800"}))[0]


def test_only_what_comes_later_is_not_supported_yet() -> None:
    with pytest.raises(NotSupportedYet, match="1 problem"):
        parsing.load(job() | {"volum_jobs": "a,b"})
    with pytest.raises(SpecError) as caught:
        parsing.load(job() | {"volum_jobs": "a,b", "nmae": "x"})
    assert not isinstance(caught.value, NotSupportedYet)


def test_rule_about_a_field_that_could_not_be_read_is_silent() -> None:
    tree = job(ports=[{"name": "http", "port": "eighty"}], health={"type": "tpc", "port": "http"})
    assert len(texts(tree)) == 2


def test_env_may_come_from_a_file_or_a_secret() -> None:
    env = {"A": "x", "B": {"file": "./token"}, "C": {"secret": "db"}}
    spec = load(job(env=env))
    assert spec.pod.tasks[0].env == {"A": "x", "B": EnvFrom(file="./token"), "C": EnvFrom(secret="db")}
    assert to_tree(spec)["pod"]["tasks"][0]["env"] == env


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({}, "`pod.tasks[0].env.A`: needs one of `file` and `secret`"),
        ({"file": "a", "secret": "b"}, "`pod.tasks[0].env.A`: needs one of `file` and `secret`, not both"),
        ({"value": "x"}, "`pod.tasks[0].env.A.value`: unknown field; known here: file, secret"),
        ({"secert": "x"}, "`pod.tasks[0].env.A.secert`: unknown field; did you mean `secret`?"),
        ({"secret": 3}, "`pod.tasks[0].env.A.secret`: must be text, not 3"),
        ({"secret": "a b"}, "`pod.tasks[0].env.A.secret`: is not the name of a secret"),
        ({"file": "a\nb\0"}, "`pod.tasks[0].env.A.file`: has control characters"),
    ],
)
def test_bad_source_of_a_variable_is_one_problem_with_its_field(source: Any, problem: str) -> None:
    (line,) = texts(job(env={"A": source}))
    assert line.startswith(problem)
