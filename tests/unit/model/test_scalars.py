"""Values arrive exactly as they were written, or are refused with what to do."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from galaxy.client.source import job_file
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.task_rules import ARGUMENT_BYTES_MAX
from galaxy.model.stored.secret import EnvFrom

FORMATS = ("yaml", "toml", "json")


def source(format: str, value: str, *, field: str = "env") -> str:
    """Return a job file in ``format`` with ``value``, as it is written there, in one field of its task."""
    if format == "json":
        fields = f'"env": {{"A": {value}}}' if field == "env" else f'"{field}": {value}'
        return (
            f'{{"name": "web", "pod": {{"tasks": [{{"cpu": 1, "memory": "64M", "start": "x", {fields}}}]}}}}'
        )
    if format == "toml":
        name = "env.A" if field == "env" else field
        return f'name = "web"\n[[pod.tasks]]\ncpu = 1\nmemory = "64M"\nstart = "x"\n{name} = {value}\n'
    fields = f"env:\n        A: {value}" if field == "env" else f"{field}: {value}"
    return f"name: web\npod:\n  tasks:\n    - cpu: 1\n      memory: 64M\n      start: x\n      {fields}\n"


def read(format: str, value: str, *, field: str = "env") -> parsing.ParseResult:
    return parsing.parse(job_file.parse(source(format, value, field=field), name="job", format=format).tree)


@pytest.mark.parametrize(
    ("format", "value", "text"),
    [
        *((format, "8080", "8080") for format in FORMATS),
        *((format, "0", "0") for format in FORMATS),
        *((format, "-5", "-5") for format in FORMATS),
        *((format, f'"{text}"', text) for format in FORMATS for text in ("true", "1.10", "+42", "~", "")),
        ("yaml", "12345678901234567890123", "12345678901234567890123"),
        ("json", "12345678901234567890123", "12345678901234567890123"),
        ("toml", "9223372036854775807", "9223372036854775807"),
        # Text in YAML's core schema, although other readers of YAML take it for something else.
        ("yaml", "yes", "yes"), ("yaml", "no", "no"), ("yaml", "on", "on"), ("yaml", "0o17", "0o17"),
        ("yaml", "0xFF", "0xFF"), ("yaml", "1_000", "1_000"), ("yaml", "007", "007"),
        ("yaml", "2026-11-30", "2026-11-30"), ("yaml", "12:30:45", "12:30:45"), ("yaml", ".nan", ".nan"),
        ("yaml", "1e", "1e"), ("yaml", "'it''s'", "it's"), ("toml", "'a\\b'", "a\\b"),
    ],
)  # fmt: skip
def test_value_of_env_arrives_as_it_was_written(format: str, value: str, text: str) -> None:
    result = read(format, value)
    assert result.diagnostics == ()
    assert result.spec.pod.tasks[0].env == {"A": text}


@pytest.mark.parametrize(
    ("format", "value"),
    [
        ("yaml", "+420777123456"), ("yaml", "-0"), ("yaml", "+0"), ("yaml", "1.10"), ("yaml", "1e3"),
        ("yaml", ".5"), ("yaml", "true"),
        ("toml", "+420777123456"), ("toml", "-0"), ("toml", "0o17"), ("toml", "0xFF"), ("toml", "0b1"),
        ("toml", "1_000"), ("toml", "1.10"), ("toml", "1e3"), ("toml", "inf"), ("toml", "nan"),
        ("toml", "true"), ("toml", "1979-05-27"), ("toml", "07:32:00"), ("toml", "1979-05-27 07:32:00Z"),
        ("json", "-0"), ("json", "1.10"), ("json", "1e3"), ("json", "1E400"), ("json", "true"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["env", "start"])
def test_other_scalar_is_refused_as_it_was_written(format: str, value: str, field: str) -> None:
    text = source(format, value) if field == "env" else source(format, value, field="stop")
    (problem,) = parsing.parse(job_file.parse(text, name="job", format=format).tree).diagnostics
    assert (
        problem.text == f"must be text, not {value.lower() if value == 'False' else value}; put it in quotes"
    )


@pytest.mark.parametrize(
    ("format", "value"), [("yaml", "~"), ("yaml", ""), ("yaml", "null"), ("json", "null")]
)
def test_nothing_is_refused_with_what_empty_text_is(format: str, value: str) -> None:
    (problem,) = read(format, value).diagnostics
    assert problem.text == 'must be text, not nothing; write "" for empty text'


@pytest.mark.parametrize("format", FORMATS)
def test_whole_number_is_text_in_every_field_of_text(format: str) -> None:
    result = read(format, "5", field="stop")
    assert result.diagnostics == ()
    assert result.spec.pod.tasks[0].stop == "5"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (True, "must be text, not true; put it in quotes"),
        (1.5, "must be text, not 1.5; put it in quotes"),
        (date(2026, 11, 30), "must be text, not 2026-11-30; put it in quotes"),
        (b"x", "must be text, not b'x'; put it in quotes"),
        ([1], "must be text, not a list; write one value"),
    ],
)
def test_values_of_python_follow_the_same_rule(value: Any, problem: str) -> None:
    task = {"cpu": 1, "memory": "64M", "start": "x", "env": {"A": value}}
    (found,) = parsing.parse({"name": "web", "pod": {"tasks": [task]}}).diagnostics
    assert found.text == problem


def test_number_that_python_refuses_to_write_is_refused() -> None:
    task = {"cpu": 1, "memory": "64M", "start": "x", "env": {"A": 10**5000}}
    (found,) = parsing.parse({"name": "web", "pod": {"tasks": [task]}}).diagnostics
    assert found.text == "must be text, not a very long number; put it in quotes"


def test_name_of_a_variable_that_is_no_text_is_refused() -> None:
    task = {"cpu": 1, "memory": "64M", "start": "x", "env": {1: "a"}}
    (found,) = parsing.parse({"name": "web", "pod": {"tasks": [task]}}).diagnostics
    assert str(found) == "`pod.tasks[0].env.1`: is not the name of a variable: it must be text"


def test_numbers_that_are_not_canonical_are_numbers_where_numbers_are_expected() -> None:
    spec = read("toml", "0x40", field="pids").spec
    assert spec.pod.tasks[0].pids == 64
    assert type(spec.pod.tasks[0].pids) is int
    assert read("yaml", "+64", field="pids").spec.pod.tasks[0].pids == 64


@pytest.mark.parametrize("text", ["!!str 1", '!!int "3"', "!!str true", "! 5", "!!float 1"])
def test_tag_of_yaml_is_refused_because_it_would_not_be_read_as_it_says(text: str) -> None:
    with pytest.raises(Exception, match="cannot read") as caught:
        read("yaml", text)
    assert "is not read; put text in quotes" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "form"),
    [
        ("ports", [1], "a name like http, or have fields (name, port), not 1"),
        ("services", [True], "a name like web, or have fields (name, port), not true"),
        ("cpu", True, "an amount of CPU like 250m, or have fields (millicores, excess), not true"),
        ("memory", 1.5, "a size like 64M, or have fields (size, excess), not 1.5"),
        ("blkio", "high", 'a weight, or have fields (weight), not "high"'),
        ("network", 5, "a mode, or have fields (mode, recv_bps, send_bps), not 5"),
        ("package", "x.tar", '(source, version, sha256, path), not "x.tar"'),
    ],
)
def test_part_that_needs_fields_says_its_shorthand_and_its_fields(field: str, value: Any, form: str) -> None:
    task = {"cpu": 1, "memory": "64M", "start": "x"} | {field: value}
    problems = [found.text for found in parsing.parse({"name": "web", "pod": {"tasks": [task]}}).diagnostics]
    assert any(problem.endswith(form) for problem in problems), problems


def test_part_that_needs_fields_quotes_a_number_as_it_was_written() -> None:
    text = source("json", '"x"').replace('"64M"', "1e3")
    (problem,) = parsing.parse(job_file.parse(text, name="job", format="json").tree).diagnostics
    assert problem.text == "must be a size like 64M, or have fields (size, excess), not 1e3"


def test_variable_that_the_kernel_would_not_pass_is_refused() -> None:
    def problems(size: int, letter: str = "x") -> list[str]:
        return [str(found) for found in read("json", json.dumps(letter * size)).diagnostics]

    assert problems(ARGUMENT_BYTES_MAX - len("A=") - 1) == []
    (problem,) = problems(ARGUMENT_BYTES_MAX - len("A="))
    assert problem.startswith(
        "`pod.tasks[0].env.A`: takes 131,073 bytes with its name; the kernel passes 131,072"
    )
    assert "takes 140,003 bytes" in problems(70_000, "é")[0]


@pytest.mark.parametrize(("stack", "fits"), [(1 << 16, False), (1 << 23, True), (-1, True), (None, True)])
def test_variables_that_do_not_fit_the_limit_on_the_stack_are_refused(stack: Any, fits: bool) -> None:
    env = {f"V{number}": "x" * 15_000 for number in range(10)}
    task = {"cpu": 1, "memory": "64M", "start": "x", "env": env}
    if stack is not None:
        task["ulimits"] = {"stack": stack}
    problems = [str(each) for each in parsing.parse({"name": "web", "pod": {"tasks": [task]}}).diagnostics]
    assert len(problems) == (0 if fits else 1), problems
    assert fits or "the kernel passes 131,072 to a program" in problems[0]


def test_sources_of_variables_follow_the_rule_for_text() -> None:
    task = {"cpu": 1, "memory": "64M", "start": "x", "env": {"A": {"file": 5}}}
    result = parsing.parse({"name": "web", "pod": {"tasks": [task]}})
    assert result.spec.pod.tasks[0].env == {"A": EnvFrom(file="5")}


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("--- # env=prod\nname: web\n", "yaml"),
        ("---\nname: a=b\n", "yaml"),
        ("%YAML 1.2\n---\nname: web\n", "yaml"),
        ("# a = b\nname: web\n", "yaml"),
        ("{name: web, type: batch}\n", "yaml"),
        ("? name\n: a=b\n", "yaml"),
        ('"a=b": 1\n', "yaml"),
        ('"a:b" = 1\n', "toml"),
        ('name="web" # a: b\n', "toml"),
        ("[pod]\nx = 1\n", "toml"),
        ('\ufeff{"name": "web"}'.removeprefix("\ufeff"), "json"),
    ],
)
def test_format_is_guessed_by_what_the_text_is(text: str, format: str) -> None:
    assert job_file.parse(text, name="x").format == format


@pytest.mark.parametrize(
    ("text", "place"), [("name = \n", "x:1:8"), ('{"a": [}', "x:1:8"), ("a: [\n", "x:2:1")]
)
def test_text_that_is_wrong_in_every_format_is_explained_in_the_likely_one(text: str, place: str) -> None:
    with pytest.raises(Exception, match="cannot read") as caught:
        job_file.parse(text, name="x")
    assert place in str(caught.value)
