"""The JSON Schema of job files, and the templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from galaxy.client.source.job_file import parse
from galaxy.model.jobspec import parsing
from galaxy.model.jobspec.schema import schema
from galaxy.model.jobspec.spec import JobType
from galaxy.model.jobspec.template import template

ROOT = Path(__file__).parents[3]
SCHEMA = jsonschema.Draft202012Validator(schema())


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_schema_in_docs_is_current() -> None:
    kept = json.loads((ROOT / "docs" / "job.schema.json").read_text())
    assert kept == schema(), "run: galaxy job schema > docs/job.schema.json"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("job*.yaml")), ids=str)
def test_examples_satisfy_schema_and_parser(path: Path) -> None:
    tree = parse(path.read_text(), name=str(path), format="yaml").tree
    SCHEMA.validate(tree)
    parsing.load(tree)


@pytest.mark.parametrize("type_", [JobType.MONITOR, JobType.SERVICE, JobType.BATCH])
def test_templates_satisfy_schema_and_parser(type_: JobType) -> None:
    tree = parse(template("web", type_), name="template", format="yaml").tree
    SCHEMA.validate(tree)
    spec = parsing.load(tree)
    assert (spec.name, spec.type) == ("web", type_)


def job(**task: Any) -> dict[str, Any]:
    fields = {"cpu": "250m", "memory": "64M", "start": "run"} | task
    return {"name": "web", "pod": {"tasks": [fields]}}


@pytest.mark.parametrize(
    "tree",
    [
        job(ports=["http", {"name": "b", "port": 12300}], services=["a"], health="http", restart="always"),
        job(cpu=0.5, memory={"size": "1G", "excess": True}, blkio=300, network="host", env={"A": 1}),
        job() | {"deploy": {"pools": "a,b", "interval": "1m30s", "stop_timeout": 5}},
    ],
)
def test_schema_allows_the_shorthands(tree: dict[str, Any]) -> None:
    SCHEMA.validate(tree)


@pytest.mark.parametrize(
    "tree",
    [
        job(cpu="250x"), job(memory="64X"), job(start=""), job(pids="many"), job() | {"type": "servce"},
        job() | {"deploy": {"replcia": 1}}, job() | {"name": "No Name"}, {"name": "web", "pod": {}},
    ],
)  # fmt: skip
def test_schema_refuses_what_the_parser_refuses(tree: dict[str, Any]) -> None:
    assert not SCHEMA.is_valid(tree)
    assert parsing.parse(tree).diagnostics
