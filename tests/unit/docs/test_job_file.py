"""docs/job-file.md names exactly the fields of the model, with their defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from galaxy.model.jobspec import spec
from galaxy.model.jobspec.parsing import load

ROOT = Path(__file__).parents[3]
DOC = ROOT / "docs" / "job-file.md"
SECTIONS: dict[str, type] = {
    "job": spec.JobSpec,
    "deploy": spec.DeploySpec,
    "pod": spec.PodSpec,
    "volume": spec.VolumeSpec,
    "task": spec.TaskSpec,
    "cpu": spec.CpuSpec,
    "memory": spec.MemorySpec,
    "network": spec.NetworkSpec,
    "blkio": spec.BlkioSpec,
    "port": spec.PortSpec,
    "package": spec.PackageSpec,
    "data": spec.DataSpec,
    "restart": spec.RestartSpec,
    "health": spec.HealthSpec,
    "service": spec.ServiceSpec,
}
SCALARS = (str, int, float, bool)


def documented(section: str) -> dict[str, str]:
    """Return the fields of a section's table with the default that it states."""
    text = DOC.read_text().split(f"\n### {section}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\|", text, re.MULTILINE)
    return {name: default.strip() for name, default in rows}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_documented_and_no_other(section: str) -> None:
    fields = {field.name for field in msgspec.structs.fields(SECTIONS[section])}
    assert set(documented(section)) == fields


@pytest.mark.parametrize("section", SECTIONS)
def test_plain_defaults_are_as_documented(section: str) -> None:
    defaults = documented(section)
    for field in msgspec.structs.fields(SECTIONS[section]):
        default: Any = field.default
        if default is msgspec.NODEFAULT or not isinstance(default, SCALARS):
            continue
        shown = {True: "true", False: "false"}.get(default) if isinstance(default, bool) else None
        shown = shown or (f"{default:g}" if isinstance(default, float) else str(default) or '""')
        assert defaults[field.name] == f"`{shown}`", field.name


def test_every_struct_of_a_job_file_has_a_section() -> None:
    structs = {kind for name, kind in vars(spec).items() if name.endswith("Spec")}
    assert set(SECTIONS.values()) == structs


def test_file_in_the_documentation_is_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        assert load(yaml.safe_load(block)).name == "hello"


def test_example_is_valid() -> None:
    job = load(yaml.safe_load((ROOT / "examples/hello/job.yaml").read_text()))
    assert (job.name, job.deploy.replica, job.type) == ("hello", 2, spec.JobType.SERVICE)
