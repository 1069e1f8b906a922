"""Strategies for valid jobs."""

from __future__ import annotations

from hypothesis import strategies as st

from galaxy.model.jobspec.spec import (
    BlkioSpec,
    CpuSpec,
    DataSpec,
    DeploySpec,
    HealthSpec,
    JobSpec,
    JobType,
    Medium,
    MemorySpec,
    PackageSpec,
    PodSpec,
    PortSpec,
    RestartSpec,
    ServiceSpec,
    TaskSpec,
    VolumeSpec,
)
from galaxy.model.stored.secret import EnvFrom

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\ufffe\uffff"), max_size=30
)
VARIABLES = st.from_regex(r"[A-F_][A-Za-z0-9_]{0,9}", fullmatch=True)
COMMANDS = TEXTS.filter(bool)
SECONDS = st.floats(0, 3600, allow_nan=False) | st.integers(0, 3600).map(float)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


def packages(place: str) -> st.SearchStrategy[PackageSpec]:
    return st.builds(
        PackageSpec,
        source=st.just("https://h/").flatmap(lambda base: NAMES.map(lambda name: base + name)),
        version=TEXTS.filter(bool),
        sha256=st.just("") | HEX,
        path=st.just(place),
    )


SOURCES = st.one_of(
    st.builds(EnvFrom, secret=st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", fullmatch=True)),
    st.builds(EnvFrom, file=st.from_regex(r"(\./)?[A-Za-z0-9 é_.-]{1,20}", fullmatch=True)),
)


@st.composite
def tasks(draw: st.DrawFn, index: int, batch: bool) -> TaskSpec:
    ports = tuple(
        PortSpec(name=f"p{index}x{n}", port=draw(st.just(0) | st.just(1025 + index * 100 + n)))
        for n in range(draw(st.integers(0, 3)))
    )
    health = None
    if ports and draw(st.booleans()):
        kind = draw(st.sampled_from(["tcp", "http"]))
        health = HealthSpec(type=kind, port=ports[0].name, interval=draw(st.floats(0.1, 3600)))
    elif draw(st.booleans()):
        health = HealthSpec(type="command", command=draw(COMMANDS), grace=draw(SECONDS))
    chosen = [port for port in ports if draw(st.booleans())]
    services = tuple(ServiceSpec(name=f"s{index}-{n}", port=port.name) for n, port in enumerate(chosen))
    low, high = sorted((draw(SECONDS), draw(SECONDS)))
    restart = RestartSpec(
        policy=draw(st.sampled_from(["on-failure", "never"] + ([] if batch else ["always"]))),
        delay=low,
        delay_max=high,
    )
    return TaskSpec(
        name=f"t{index}",
        cpu=CpuSpec(millicores=draw(st.integers(10, 10**6)), excess=draw(st.booleans())),
        memory=MemorySpec(size=draw(st.integers(2**22, 2**50)), excess=draw(st.booleans())),
        start=draw(COMMANDS),
        stop=draw(TEXTS),
        blkio=BlkioSpec(weight=draw(st.integers(1, 999))),
        pids=draw(st.integers(8, 32768)),
        ports=ports,
        package=draw(st.none() | packages(f"exec{index}")),
        data=draw(
            st.none() | st.builds(DataSpec, packages=st.tuples(packages(f"data{index}")), reload=TEXTS)
        ),
        env=draw(st.dictionaries(VARIABLES, st.one_of(TEXTS, TEXTS, SOURCES), max_size=3)),
        restart=draw(st.none() | st.just(restart)),
        health=health,
        services=services,
    )


@st.composite
def jobs(draw: st.DrawFn) -> JobSpec:
    kind = draw(st.sampled_from([JobType.MONITOR, JobType.SERVICE, JobType.BATCH]))
    count = draw(st.integers(1, 3))
    sizes = st.integers(2**20, 2**50)
    volumes = tuple(
        VolumeSpec(
            path=f"/data/v{n}",
            size=draw(sizes),
            medium=draw(st.sampled_from([Medium.DISK, Medium.TMPFS])),
            readonly=draw(st.booleans()),
        )
        for n in range(draw(st.integers(0, 3)))
    )
    return JobSpec(
        name=draw(NAMES),
        type=kind,
        deploy=DeploySpec(
            replica=draw(st.integers(0, 9999)),
            step=draw(st.integers(1, 9999)),
            interval=draw(SECONDS),
            max_per_host=draw(st.integers(0, 9999)),
            pools=tuple(draw(st.lists(NAMES, max_size=3, unique=True))),
            tag=draw(st.just("") | NAMES),
            stop_timeout=draw(st.floats(0, 120)),
            drain=draw(st.floats(0, 300)),
        ),
        pod=PodSpec(
            workspace=VolumeSpec(path="/home/work", size=draw(sizes)),
            volumes=volumes,
            tasks=tuple(draw(tasks(index, kind is JobType.BATCH)) for index in range(count)),
        ),
    )
