"""Parsing a tree into a job, or into diagnostics."""

from __future__ import annotations

from typing import Any

import pytest

from galaxy.errors import NotSupportedYet, SpecError
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.diagnostics import Mark, spec_error
from galaxy.model.jobspec.parsing import load
from galaxy.model.jobspec.spec import CpuSpec, MemorySpec, PortSpec, VolumeSpec
from galaxy.model.jobspec.writing import to_tree
from galaxy.model.stored.secret import EnvFrom


def job(**task: Any) -> dict[str, Any]:
    fields = {"cpu": "250m", "memory": "64M", "start": "run"} | task
    return {"name": "web", "pod": {"tasks": [fields]}}


def texts(tree: Any) -> list[str]:
    return [str(diagnostic) for diagnostic in parsing.parse(tree).diagnostics]


def test_minimal_job_has_all_defaults() -> None:
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
def test_pools_are_a_list_or_text_with_commas(written: Any) -> None:
    assert parsing.load(job() | {"deploy": {"pools": written}}).deploy.pools == ("a", "b")


def test_durations_are_read_with_units() -> None:
    spec = parsing.load(job() | {"deploy": {"interval": "1m30s", "stop_timeout": 5}})
    assert (spec.deploy.interval, spec.deploy.stop_timeout) == (90.0, 5.0)


def test_service_and_health_without_a_port_use_the_only_port() -> None:
    task = parsing.load(job(ports=["http"], services=["web"], health="http")).pod.tasks[0]
    assert task.health is not None
    assert (task.services[0].port, task.health.port) == ("http", "http")


def test_whole_number_in_env_becomes_its_digits() -> None:
    assert parsing.load(job(env={"N": 8080})).pod.tasks[0].env == {"N": "8080"}


def test_five_mistakes_give_five_diagnostics_in_file_order() -> None:
    tree = job(memory="64X", services=[{"name": "a", "port": "nope"}], env={"GALAXY_X": "1"})
    tree["deploy"] = {"replcia": 3, "max_per_host": -1}
    marks = {
        (): Mark(1, 1), ("deploy",): Mark(2, 1), ("deploy", "replcia"): Mark(3, 3),
        ("deploy", "max_per_host"): Mark(4, 3), ("pod", "tasks", 0, "memory"): Mark(9, 7),
        ("pod", "tasks", 0, "services", 0, "port"): Mark(11, 9),
        ("pod", "tasks", 0, "env", "GALAXY_X"): Mark(13, 9),
    }  # fmt: skip
    error = spec_error(parsing.parse(tree).diagnostics, name="job.yaml", marks=marks)
    assert error.message == 'cannot use job file "job.yaml": 5 problems'
    assert [line.split(" ")[0] for line in error.details] == [
        "job.yaml:3:3:", "job.yaml:4:3:", "job.yaml:9:7:", "job.yaml:11:9:", "job.yaml:13:9:",
    ]  # fmt: skip
    assert "`deploy.replcia`: unknown field; did you mean `replica`?" in error.details[0]


def test_misspelled_required_field_gives_one_diagnostic() -> None:
    tree = job()
    tree["pod"]["tasks"][0]["memroy"] = tree["pod"]["tasks"][0].pop("memory")
    assert texts(tree) == ["`pod.tasks[0].memroy`: unknown field; did you mean `memory`?"]


@pytest.mark.parametrize(
    ("word", "ours"), [("mem", "memory"), ("start_cmd", "start"), ("exec_package", "package")]
)
def test_field_name_of_galaxy_3_suggests_ours(word: str, ours: str) -> None:
    assert texts(job(**{word: 1})) == [f"`pod.tasks[0].{word}`: unknown field; did you mean `{ours}`?"]


def test_field_in_the_wrong_place_gives_the_right_path() -> None:
    assert texts(job() | {"replica": 3}) == ["`replica`: unknown field here; it belongs at `deploy.replica`"]


def test_unknown_field_without_a_similar_one_lists_known_fields() -> None:
    assert "known here: name, pod, type, deploy" in texts(job() | {"zzzz": 1})[0]


def test_value_out_of_range_gives_the_limit_with_its_unit() -> None:
    tree = job(memory="1M", cpu="1m")
    assert texts(tree) == [
        "`pod.tasks[0].cpu.millicores`: 1m is below the minimum of 10m",
        "`pod.tasks[0].memory.size`: 1 MiB is below the minimum of 4 MiB",
    ]


def test_number_where_text_is_needed_asks_for_quotes() -> None:
    tree = job(package={"source": "a.tar.gz", "version": 1.1})
    assert texts(tree) == ["`pod.tasks[0].package.version`: must be text, not 1.1; put it in quotes"]


def test_near_miss_of_a_value_is_suggested() -> None:
    assert texts(job() | {"type": "servce"}) == ['`type`: "servce" is not known; did you mean `service`?']
    assert "did you mean `on-failure`?" in texts(job(restart="on_failure"))[0]


def test_true_is_not_a_number() -> None:
    assert "must be a whole number" in texts(job() | {"deploy": {"replica": True}})[0]
    assert "must be true or false" in texts(job(cpu={"millicores": 10, "excess": 1}))[0]


@pytest.mark.parametrize(
    "tree", [None, [], "x", 3, {"pod": []}, {"pod": {"tasks": {}}}, {"pod": {"tasks": [1]}}]
)
def test_wrong_shape_gives_diagnostics_and_does_not_raise(tree: Any) -> None:
    assert parsing.parse(tree).diagnostics


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("nan"), "9" * 400, 10**18])
def test_absurd_number_gives_a_diagnostic_and_does_not_raise(number: Any) -> None:
    assert parsing.parse(job(memory=number)).diagnostics
    assert parsing.parse(job(cpu={"millicores": number})).diagnostics
    assert parsing.parse(job() | {"deploy": {"interval": number}}).diagnostics


def test_unpaired_surrogate_is_refused() -> None:
    assert "surrogate" in texts(job(start="\ud800"))[0]
    assert "surrogate" in texts(job(env={"A": "\ud800"}))[0]


def test_only_fields_of_later_versions_are_not_supported_yet() -> None:
    with pytest.raises(NotSupportedYet, match="1 problem"):
        parsing.load(job() | {"volum_jobs": "a,b"})
    with pytest.raises(SpecError) as caught:
        parsing.load(job() | {"volum_jobs": "a,b", "nmae": "x"})
    assert not isinstance(caught.value, NotSupportedYet)


def test_rule_about_an_unparsed_field_gives_no_diagnostic() -> None:
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
        ({"secret": 3.5}, "`pod.tasks[0].env.A.secret`: must be text, not 3.5; put it in quotes"),
        ({"secret": "a b"}, "`pod.tasks[0].env.A.secret`: is not the name of a secret"),
        ({"file": "a\nb\0"}, "`pod.tasks[0].env.A.file`: has control characters"),
    ],
)
def test_bad_source_of_a_variable_gives_one_diagnostic_with_its_field(source: Any, problem: str) -> None:
    (line,) = texts(job(env={"A": source}))
    assert line.startswith(problem)


def test_problem_of_a_job_without_a_file_names_the_job_and_the_field() -> None:
    with pytest.raises(SpecError) as caught:
        load(job(memory="64X"))
    assert caught.value.message == 'cannot use job "web": 1 problem'
    assert caught.value.details[0].startswith("`pod.tasks[0].memory`: ")
