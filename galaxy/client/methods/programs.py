"""The output of programs, and commands in their containers."""

from __future__ import annotations

from collections.abc import Sequence

from galaxy.client import arguments
from galaxy.client.log_stream import LogStream, NewPods
from galaxy.client.methods.jobs import JobMethods
from galaxy.client.streams import ExecStream, Executed
from galaxy.model.api.sessions import ExecIn, LogPosition, ReadLogs, SessionOpened, check_exec
from galaxy.model.raw_text import to_message


class ProgramMethods(JobMethods):
    """The output of programs, and commands in their containers."""

    def logs(
        self,
        target: str,
        *,
        task: str = "",
        stream: str = "",
        tail: int = 200,
        follow: bool = False,
        previous: bool = False,
        latest: bool = False,
        since_s: float = 0.0,
    ) -> LogStream:
        """Return an iterator over the logs of a job or a pod, as ``LogChunk``, in the order of time.

        ``tail`` is the number of last lines of each pod; -1 means all that are kept. ``since_s`` leaves
        out what was written before that time, in Unix seconds. ``latest`` reads the latest run of each
        program alone, and ``previous`` the run before it.

        Following waits for the first pod, continues with pods that scaling adds and with containers
        that replace others, and ends with the job. Close the iterator to stop earlier.
        """
        asked = ReadLogs(
            target=target,
            task=task,
            stream=stream,
            tail=tail,
            follow=follow,
            previous=previous,
            latest=latest,
            since_s=since_s,
        )

        def open_logs(pod: str, resume: Sequence[LogPosition], incarnation: int) -> SessionOpened:
            return self._ask(
                ReadLogs(
                    target=pod,
                    task=task,
                    stream=stream,
                    tail=-1,
                    follow=True,
                    since_s=since_s,
                    resume=tuple(resume),
                    resume_incarnation=incarnation,
                )
            )

        new_pods = NewPods(target, self.job, open_logs) if follow else None
        return LogStream(self._ask(asked), self._transport.session, new_pods=new_pods)

    def open_exec(
        self,
        pod: str,
        argv: arguments.Command,
        *,
        task: str = "",
        tty: bool = False,
        rows: int = 24,
        columns: int = 80,
        detach: bool = False,
    ) -> ExecStream:
        """Start ``argv`` in a pod and return its streams; the name of a job means its first running pod.

        ``argv`` is a list of texts. One text is split as a shell would split it, and no shell runs:
        for pipes and patterns use ``["sh", "-c", "ls *.log | wc -l"]``.

        The command ends with this process, at the latest two seconds after it. With ``detach`` it runs
        on, without input and output, and its stream ends with status 0 as soon as it was started.
        """
        asked = ExecIn(
            pod=pod,
            argv=tuple(map(to_message, arguments.command(argv))),
            task=task,
            tty=tty,
            rows=rows,
            columns=columns,
            detach=detach,
        )
        check_exec(asked.argv)
        opened = self._ask(asked)
        return ExecStream(opened.pods[0], self._transport.session(opened.sessions[0]))

    def exec(
        self,
        pod: str,
        argv: arguments.Command,
        *,
        task: str = "",
        input: bytes = b"",
        timeout_s: float = 60.0,
    ) -> Executed:
        """Run ``argv`` in a pod and return its exit status and output (at most 8 MiB).

        ``argv`` is as in ``open_exec``: a list of texts, or one text that is split as a shell would.

        Raises:
            TimedOut: it did not end within ``timeout_s``; the command is ended.
            Conflict: the pod does not run.
            NotFound: there is no such pod or job.
        """
        with self.open_exec(pod, argv, task=task) as stream:
            return stream.communicate(input, timeout_s)
