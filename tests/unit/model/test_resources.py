"""Resources: arithmetic, ceilings, and adding a resource with one row of the table."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from galaxy.cli.output import with_all_fields
from galaxy.model import resources
from galaxy.model.api.views import JobSummary
from galaxy.model.base import decode, encode
from galaxy.model.jobspec.spec import Medium
from galaxy.model.messages.agent import AgentInfo
from galaxy.model.messages.container import Demand, TaskDemand, VolumeDemand
from galaxy.model.resources import (
    AMOUNT_MAX,
    FIELDS,
    NOTHING,
    RESOURCES,
    Ceiling,
    Resources,
    amounts_text,
)

GIB = 1024**3


def test_sums_and_products_are_taken_resource_by_resource() -> None:
    one = Resources(cpu_milli=500, memory_bytes=GIB)
    assert one + one == one * 2
    assert one - one == NOTHING
    assert one.plus(Resources(cpu_milli=100), -3) == Resources(cpu_milli=200, memory_bytes=GIB)


def test_amount_fits_only_if_there_is_enough_of_every_resource() -> None:
    asked = Resources(cpu_milli=500, memory_bytes=GIB)
    assert asked.fits(asked)
    assert not asked.fits(Resources(cpu_milli=4000, memory_bytes=GIB - 1))


def test_amounts_from_the_wire_are_bounded() -> None:
    assert Resources(cpu_milli=-1, disk_bytes=1 << 60).bounded() == Resources(disk_bytes=AMOUNT_MAX)


def test_resources_of_one_container_count_it_as_one() -> None:
    assert Resources(cpu_milli=5, containers=9).of_one_container() == Resources(cpu_milli=5, containers=1)


def test_demand_adds_up_tasks_and_volumes_by_medium() -> None:
    demand = Demand(
        tasks=(
            TaskDemand(name="a", cpu_milli=100, memory_bytes=GIB),
            TaskDemand(name="b", cpu_milli=50, memory_bytes=GIB),
        ),
        workspace=VolumeDemand(path="/work", size_bytes=3 * GIB),
        volumes=(VolumeDemand(path="/tmp", size_bytes=GIB, medium=Medium.TMPFS),),
    )
    assert demand.resources == Resources(
        cpu_milli=150, memory_bytes=3 * GIB, disk_bytes=3 * GIB, containers=1
    )


def test_ceiling_has_a_field_for_each_resource_and_zero_is_not_no_limit() -> None:
    assert Ceiling.__struct_fields__ == FIELDS
    ceiling = Ceiling(containers=0)
    assert decode(encode(ceiling), Ceiling) == ceiling
    assert [(row.name, limit) for row, limit in ceiling.limits()] == [("containers", 0)]


def test_room_under_a_ceiling_is_that_of_the_resource_that_runs_out_first() -> None:
    ceiling = Ceiling(cpu_milli=1000, memory_bytes=GIB, containers=50)
    room = ceiling.room(
        Resources(memory_bytes=GIB // 2), Resources(cpu_milli=100, memory_bytes=GIB // 8, containers=1)
    )
    assert room is not None
    assert (room[0], room[1].name) == (4, "memory")
    assert Ceiling(disk_bytes=1).room(NOTHING, Resources(cpu_milli=1)) is None


def test_only_growth_above_a_ceiling_exceeds_it() -> None:
    ceiling = Ceiling(cpu_milli=100, containers=1)
    before = Resources(cpu_milli=300, containers=1)
    assert ceiling.exceeded(before, Resources(cpu_milli=200, containers=1)) == ()
    exceeded = ceiling.exceeded(before, Resources(cpu_milli=301, containers=2))
    assert [row.name for row in exceeded] == ["cpu", "containers"]


@pytest.mark.parametrize("row", RESOURCES, ids=lambda row: row.name)
def test_example_of_each_resource_is_parsed_and_shown(row: resources.Resource) -> None:
    assert row.parse(row.show(row.parse(row.example))) == row.parse(row.example)


def test_amounts_are_written_with_the_name_of_each_resource() -> None:
    shown = amounts_text(Resources(cpu_milli=500, memory_bytes=GIB, disk_bytes=0))
    assert shown == "cpu 500m, memory 1 GiB, disk 0 B"


def test_views_keep_the_json_names_of_resources() -> None:
    info = AgentInfo(agent="h1", address="a", boot="b", version="1", cpu_milli=4000, containers=7)
    shown = with_all_fields(info)
    assert (shown["cpu_milli"], shown["containers_max"]) == (4000, 7)
    assert decode(encode(info), AgentInfo) == info
    job = JobSummary(job="j", name="j", type="service", state="running", revision=1, replica=1, cpu_milli=500)
    assert next(iter(with_all_fields(job))) == "job"
    assert with_all_fields(job)["cpu_milli"] == 500


def test_one_more_row_reaches_placement_explanations_quotas_and_listings(tmp_path: Path) -> None:
    """Add a row ``gpu`` to the source of the table, in a process of its own, and use it everywhere."""
    source = Path(resources.__file__).read_text()
    where = "    containers: Annotated["
    assert source.count(where) == 1
    (tmp_path / "resources.py").write_text(source.replace(where, _ROW + where))
    script = tmp_path / "script.py"
    script.write_text(_LOAD.format(path=str(tmp_path / "resources.py")) + textwrap.dedent(_WITH_GPU))
    root = Path(resources.__file__).parents[2]
    run = subprocess.run(
        [sys.executable, str(script)],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr


_ROW = """\
    gpu: Annotated[int, Resource(
        name="gpu", unit="a number", example="2", show=str, parse=parse_count,
    )] = 0
"""

_LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("galaxy.model.resources", {path!r})
import galaxy.model
module = importlib.util.module_from_spec(spec)
sys.modules["galaxy.model.resources"] = module
spec.loader.exec_module(module)
"""

_WITH_GPU = """
from galaxy.cli.identity.quota import quota_lines, read_limits
from galaxy.cli.tables import agent_rows, job_rows
from galaxy.model.api.views import AgentView, JobSummary, QuotaView
from galaxy.model.base import decode, encode
from galaxy.model.messages.agent import AgentInfo, AgentState
from galaxy.model.resources import Ceiling, Resources
from galaxy.model.stored.agent import first_record
from galaxy.scheduler.cluster_view import ClusterView
from galaxy.scheduler.place import place
from galaxy.scheduler.requests import Ask, Load, Shape

info = AgentInfo(agent="h1", address="a", boot="b", version="1", cpu_milli=4000, gpu=2)
view = ClusterView()
view.join(first_record(info))
shape = Shape(load=Load(Resources(cpu_milli=100, gpu=1, containers=1)))
plan = place(view, [Ask(group="g", shape=shape, containers=("g.0", "g.1", "g.2"))])
assert len(plan.placements) == 2
assert int(view.free_of("gpu")[0]) == 0
reason = plan.refusals[0].reason
assert (reason.code, reason.nearest) == ("gpu", ("h1 lacks 1 gpu",)), reason
assert "1 of 1 lacks gpu" in reason.message

ceiling, lift = read_limits(["gpu=3", "cpu=none"])
assert (ceiling.gpu, lift) == (3, ("cpu_milli",))
assert ceiling.room(Resources(gpu=1), Resources(gpu=1))[0] == 2
assert decode(encode(ceiling), Ceiling) == ceiling
view = QuotaView(user="ann", pool="*", ceiling=ceiling, wanted=Resources(gpu=2), used=Resources(gpu=1))
assert "  gpu: ceiling 3, 2 wanted, 1 used" in quota_lines(view)

agent = AgentView(agent="h1", state=AgentState.ALIVE, info=info, assigned=Resources(gpu=2))
titles, rows = agent_rows([agent], 0.0)
assert rows[0][titles.index("GPU")] == "2/2"
job = JobSummary(job="j", name="j", type="service", state="running", revision=1, replica=1, gpu=1)
titles, rows = job_rows([job], 0.0)
assert rows[0][titles.index("GPU")] == "1"
"""
