"""The pod's logic when outcomes of effects are late, in any order, failures, or missing.

Never: two programs of a task at once, a program beside processes that an earlier one left, a program
with half-replaced files, a finished batch program again. Eventually: once outcomes come in order,
every pod reaches the state of its last order.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from galaxy.model.jobspec.spec import CpuSpec, DataSpec, MemorySpec, PackageSpec, RestartSpec, TaskSpec
from galaxy.model.messages.container import Reason
from galaxy.model.messages.pod import Exit, PodOrder, PodState, TaskState
from galaxy.worker_entry.logic.effects import (
    CancelDeploy,
    Effect,
    KillTask,
    PlacePackages,
    RunProbe,
    RunReload,
    StagePackages,
    StartProgram,
    StopProgram,
    TerminateTask,
)
from galaxy.worker_entry.logic.events import (
    DeployFailed,
    Event,
    OrderReceived,
    PackagesPlaced,
    PackagesStaged,
    ProbeAnswered,
    ProgramEnded,
    ProgramStarted,
    QuitRequested,
    ReloadEnded,
    TaskEmptied,
    Ticked,
)
from galaxy.worker_entry.logic.pod import step, wake_s
from galaxy.worker_entry.logic.records import SupervisedPod
from galaxy.worker_entry.logic.report import observe, state_of


class Machine:
    """Simulates the processes and files of one task, and checks every effect on them."""

    def __init__(self) -> None:
        self.pod = SupervisedPod(known=("main",))
        self.now_s = 0.0
        self.alive: int | None = None
        self.left_over = False
        self.run = 0
        self.files: tuple[PackageSpec, ...] | None = ()
        self.staging: StagePackages | None = None
        self.placing: PlacePackages | None = None
        self.commands: list[RunReload | RunProbe] = []
        self.leaving: int | None = None
        self.finished_order: PodOrder | None = None
        self.ended = False

    def feed(self, event: Event) -> None:
        before = self.pod
        self.pod, effects = step(self.pod, event, self.now_s)
        assert observe(self.pod, pod_id="p", incarnation=1, pid=1, ports={})
        assert not (before.ended and effects)
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case StartProgram():
                assert self.alive is None, "two programs at once"
                assert not self.left_over, "a program beside processes of an earlier one"
                assert self.placing is None and self.files is not None, "files are half replaced"
                task = self.pod.tasks[0]
                assert set(self.files) == set(task.required), "not the required files"
                self.alive = self.run = effect.run
                self.left_over = True
                self.feed(ProgramStarted(task="main", run=effect.run, at_s=self.now_s))
            case StagePackages():
                self.staging, self.placing = effect, None
            case PlacePackages():
                self.staging, self.placing, self.files = None, effect, None
            case CancelDeploy():
                self.staging = self.placing = None
            case StopProgram() | KillTask():
                self.leaving = effect.run
            case RunReload() | RunProbe():
                self.commands.append(effect)

    # ---- outcomes of effects; each returns whether there was an effect to complete

    def stage(self, ok: bool, retry: bool = True) -> bool:
        effect, self.staging = self.staging, None
        if effect is None:
            return False
        if ok:
            self.feed(PackagesStaged(task="main", deploy=effect.deploy))
        else:
            reason = Reason(code="deploy-failed")
            self.feed(DeployFailed(task="main", deploy=effect.deploy, reason=reason, retry=retry))
        return True

    def place(self) -> bool:
        effect, self.placing = self.placing, None
        if effect is None:
            return False
        self.files = effect.required
        self.feed(PackagesPlaced(task="main", deploy=effect.deploy))
        return True

    def exit(self, code: int) -> bool:
        run, self.alive = self.alive, None
        if run is None:
            return False
        self.feed(ProgramEnded(task="main", run=run, exit=Exit(at_s=self.now_s, code=code)))
        return True

    def empty(self) -> bool:
        run = self.leaving
        if run is None or self.alive is not None:
            return False
        self.leaving, self.left_over = None, False
        self.feed(TaskEmptied(task="main", run=run))
        return True

    def answer(self, ok: bool) -> bool:
        if not self.commands:
            return False
        effect = self.commands.pop(0)
        if isinstance(effect, RunProbe):
            self.feed(ProbeAnswered(task="main", run=effect.run, probe=effect.probe, ok=ok))
        else:
            self.feed(ReloadEnded(task="main", run=effect.run, status=0 if ok else 1))
        return True

    def tick(self) -> bool:
        at_s = wake_s(self.pod)
        if at_s is None:
            return False
        self.now_s = max(self.now_s, at_s)
        self.feed(Ticked())
        return True

    def settle(self) -> None:
        """Complete all effects until nothing is left to do; a program exits only when it is stopped."""
        for _ in range(300):
            stopping = any(task.state is TaskState.STOPPING for task in self.pod.tasks)
            busy = (
                self.stage(True)
                or self.place()
                or (stopping and self.exit(0))
                or self.empty()
                or self.answer(True)
            )
            waits = any(task.state in (TaskState.BACKOFF, TaskState.DEPLOYING) for task in self.pod.tasks)
            if not busy and not (waits and self.tick()):
                return
        raise AssertionError(f"still not settled after 300 rounds: {self.pod}")


def make_spec(start: str, version: int, data: int, restart: RestartSpec | None) -> TaskSpec:
    return TaskSpec(
        name="main",
        cpu=CpuSpec(millicores=100),
        memory=MemorySpec(size=64 << 20),
        start=start,
        restart=restart,
        package=PackageSpec(source="a", version=str(version)) if version else None,
        data=DataSpec(packages=(PackageSpec(source="d", version=str(data)),), reload="r") if data else None,
    )


specs = st.builds(
    make_spec,
    st.sampled_from(["one", "two"]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from([None, RestartSpec(policy="never"), RestartSpec(policy="on-failure", attempts=1)]),
)
actions = st.one_of(
    st.tuples(st.just("order"), specs, st.booleans(), st.booleans(), st.booleans()),
    st.tuples(st.just("stage"), st.booleans(), st.booleans()),
    st.tuples(st.just("place")),
    st.tuples(st.just("exit"), st.sampled_from([0, 1])),
    st.tuples(st.just("empty")),
    st.tuples(st.just("answer"), st.booleans()),
    st.tuples(st.just("tick")),
    st.tuples(st.just("again")),
)


def make_order(
    generation: int,
    spec: TaskSpec,
    *,
    run: bool = True,
    revision: int = 1,
    redeploy: bool = False,
    batch: bool,
) -> PodOrder:
    return PodOrder(
        pod="p",
        incarnation=1,
        generation=generation,
        job="j",
        index=0,
        revision=revision,
        run=run,
        tasks=(spec,),
        redeploy=redeploy,
        batch=batch,
        stop_timeout=1.0,
    )


def play(machine: Machine, script: list[tuple], *, batch: bool) -> PodOrder | None:
    order = None
    for name, *arguments in script:
        if name == "order":
            spec, run, redeploy, new_revision = arguments
            generation = order.generation + 1 if order else 1
            revision = generation if new_revision or order is None else order.revision
            order = make_order(generation, spec, run=run, redeploy=redeploy, revision=revision, batch=batch)
            machine.feed(OrderReceived(order=order))
        elif name == "again":
            if order:
                before = machine.pod
                machine.feed(OrderReceived(order=order))
                assert machine.pod == before
        else:
            getattr(machine, name)(*arguments)
    return order


@settings(max_examples=400, deadline=None)
@given(st.lists(actions, max_size=40), st.booleans())
def test_any_events_never_run_two_programs_and_end_in_the_ordered_state(script, batch):
    machine = Machine()
    order = play(machine, script, batch=batch)
    machine.settle()
    if order is None:
        assert state_of(machine.pod) == PodState.PENDING
    elif order.run:
        # Failed and finished are end states as well; states in transition are not.
        assert state_of(machine.pod) in (PodState.RUNNING, PodState.FAILED, PodState.FINISHED)
        assert (machine.alive is not None) == (state_of(machine.pod) == PodState.RUNNING)
        if machine.alive is not None:
            assert machine.pod.tasks[0].running_spec == order.tasks[0]
    else:
        assert state_of(machine.pod) in (PodState.STOPPED, PodState.FINISHED)
        assert machine.alive is None and not machine.left_over


@settings(max_examples=200, deadline=None)
@given(st.lists(actions, max_size=30), st.booleans())
def test_quit_after_any_events_ends_the_container_without_leftovers(script, batch):
    machine = Machine()
    play(machine, script, batch=batch)
    machine.feed(QuitRequested(stop_timeout_s=1.0))
    machine.settle()
    assert machine.pod.ended
    assert machine.alive is None and not machine.left_over


@settings(max_examples=200, deadline=None)
@given(st.lists(actions.filter(lambda action: action[0] != "order"), max_size=30), specs)
def test_finished_batch_program_never_runs_again(script, spec):
    machine = Machine()
    first = make_order(1, spec, batch=True)
    machine.feed(OrderReceived(order=first))
    machine.settle()
    machine.exit(0)
    runs = machine.run
    for generation, run in enumerate([True, False, True], start=2):
        order = make_order(generation, spec, run=run, batch=True)
        machine.feed(OrderReceived(order=order))
        play(machine, script, batch=True)
    machine.settle()
    assert machine.run == runs
    assert state_of(machine.pod) == PodState.FINISHED


def test_processes_left_by_a_stop_command_are_sent_sigterm():
    spec = replace(make_spec("one", 0, 0, None), stop="stop")
    pod, effects = SupervisedPod(known=("main",)), []
    for event in (
        OrderReceived(order=make_order(1, spec, batch=False)),
        OrderReceived(order=make_order(2, spec, run=False, batch=False)),
        ProgramEnded(task="main", run=1, exit=Exit(at_s=0.0, code=0)),
    ):
        pod, new_effects = step(pod, event, 0.0)
        effects += new_effects
    assert [type(effect) for effect in effects] == [StartProgram, StopProgram, TerminateTask]
