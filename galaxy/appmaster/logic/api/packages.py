"""Packages that the cluster stores: who may use them, how much room they take, and when they are removed.

AppMaster decides; the content never passes through it. A client sends chunks to an upload in Redis,
and the commit that makes the row ``stored`` also makes a package of the upload; the commit that
drops the row removes the chunks (``galaxy.nexus.packages``). Agents compare the checksum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from galaxy.appmaster.logic import uses
from galaxy.appmaster.logic.job_sums import packages_bytes
from galaxy.appmaster.logic.state import AppMasterState
from galaxy.errors import Conflict, NotFound, Refused, SpecError
from galaxy.ids import package_id
from galaxy.model.api.packages import (
    ListPackages,
    PackageList,
    PackageUpload,
    RemovePackage,
    StorePackage,
    UploadPackage,
)
from galaxy.model.api.views import PackageView
from galaxy.model.jobspec.diagnostics import Diagnostic
from galaxy.model.jobspec.package_source import packages_of, stored_package, stored_packages_of, stored_source
from galaxy.model.jobspec.spec import JobSpec
from galaxy.model.stored.job import JobRecord
from galaxy.model.stored.package import PackageRecord
from galaxy.model.stored.user import Authority, UserRecord
from galaxy.operations.authz import SELF, is_operator
from galaxy.operations.declaration import AuthorityRule, Caller, change, query
from galaxy.operations.paging import page_of
from galaxy.units import counted, format_bytes, format_duration

TIMER: Final = "packages"
"""Kind of the timer that removes packages which nobody needs any more."""
SWEEP_SHARE: Final = 1 / 6
"""Interval of the timer, as a share of ``upload_s``."""


def _require_upload(_: AppMasterState, __: Any, caller: Caller) -> None:
    user = caller.user
    granted = {authority for grants in user.grants.values() for authority in grants} if user else set()
    if user is not None and not granted & {Authority.SUBMIT_JOB, Authority.UPDATE_JOB}:
        raise Refused(
            f'user "{user.user}" may not store packages',
            details=["neither submit_job nor update_job is granted on any pool"],
            hint=f"an operator can: galaxy user grant {user.user} POOL add submit_job",
        )


def _require_owner(state: AppMasterState, body: StorePackage | RemovePackage, caller: Caller) -> None:
    _find(state, body.package, caller.user)


UPLOAD: Final[AuthorityRule[AppMasterState, UploadPackage]] = AuthorityRule(
    documented="any user with `submit_job` or `update_job` on a pool", require=_require_upload
)
OWNER: Final[AuthorityRule[AppMasterState, Any]] = AuthorityRule(
    documented="the package's owner", require=_require_owner
)


@change(UploadPackage, authority=UPLOAD, target=lambda body, _: body.name)
def upload_package(state: AppMasterState, body: UploadPackage, caller: Caller) -> PackageUpload:
    """Return where to send a package, and reserve room for it; a stored package needs no upload.

    Raises:
        Refused: it is too large, or there is no room. Conflict: its id is taken.
    """
    limit = state.config.package_bytes_max
    if body.size_bytes > limit:
        raise Refused(
            f'cannot store package "{body.name}": it is too large',
            details=[f"{format_bytes(body.size_bytes)}; {format_bytes(limit)} are allowed for one package"],
            hint="put it on a web server and give its http:// URL as source; "
            "or give every AppMaster a higher --package-max (GALAXY_PACKAGE_MAX=1G galaxy up)",
        )
    key = package_id(caller.name, body.sha256)
    row = state.packages.get(key)
    if row is not None and (row.user, row.size_bytes) != (caller.name, body.size_bytes):
        raise Conflict(
            f'cannot store package "{body.name}": the cluster keeps one with this checksum',
            details=[f"{format_bytes(row.size_bytes)}, of {_owner(row)}"],
            hint="remove the jobs that use it, or build the package again",
        )
    if row is None:
        _make_room(state, body)
        row = PackageRecord(
            package=key,
            user=caller.name,
            name=body.name,
            sha256=body.sha256,
            size_bytes=body.size_bytes,
            upload=caller.secret_id(key),
        )
    row = _touch(state, row)
    return PackageUpload(
        package=_view(row), upload=row.upload, chunk_bytes=row.chunk_bytes, stored=row.stored
    )


@change(StorePackage, authority=OWNER, target=lambda body, _: body.package)
def store_package(state: AppMasterState, body: StorePackage, caller: Caller) -> PackageView:
    """Store a package whose chunks have been sent.

    Raises:
        NotFound: there is no upload of it any more.
    """
    row = _find(state, body.package, caller.user)
    return _view(_touch(state, msgspec.structs.replace(row, stored=True)))


@query(ListPackages, authority=SELF)
def list_packages(state: AppMasterState, body: ListPackages, caller: Caller) -> PackageList:
    """List the packages of one user, or of all, by owner and name."""
    user = body.user or caller.name
    keys = tuple(state.packages) if body.all else state.packages.where("user", user)
    rows = (state.packages[key] for key in keys)
    page, after = page_of(rows, lambda row: (row.user, row.name, row.package), body)
    return PackageList(
        packages=tuple(_view(row, uses.jobs_with_package(state, row.package)) for row in page),
        size_bytes=packages_bytes(state),
        bytes_max=state.config.packages_bytes_max,
        next=after,
    )


@change(RemovePackage, authority=OWNER, target=lambda body, _: body.package)
def remove_package(state: AppMasterState, body: RemovePackage, caller: Caller) -> PackageView:
    """Remove a package that no job uses.

    Raises:
        NotFound: there is no such package. Conflict: names the jobs that use it.
    """
    row = _find(state, body.package, caller.user)
    view = _view(row, uses.jobs_with_package(state, row.package))
    if view.jobs:
        raise Conflict(
            f'cannot remove package "{row.name}": it is used by {uses.number(view)}',
            details=[", ".join(view.jobs[:10]) + (", ..." if len(view.jobs) > 10 else "")],
            hint="remove them first; a job also uses the package of the revision before its last update",
        )
    state.packages.drop(row.package)
    return view


# ---- for other parts of AppMaster


def begin(state: AppMasterState) -> None:
    """Schedule the removal of packages at the beginning of a leadership."""
    if len(state.packages):
        state.timers.set_if_sooner((TIMER, TIMER), state.now_s + SWEEP_SHARE * state.config.upload_s)


def require(state: AppMasterState, spec: JobSpec, caller: Caller, job: JobRecord | None = None) -> None:
    """Make sure that ``spec``, for a new job or for ``job``, uses only packages that the caller may use.

    These are the caller's own, for operators everybody's, and those that the job has already.

    Raises:
        SpecError: lists every package that the cluster does not have, or that is another user's.
    """
    revisions = [state.revisions[key] for key in state.revisions.where("job", job.job)] if job else []
    present = {package for revision in revisions for package in stored_packages_of(revision.spec)}
    problems: list[Diagnostic] = []
    used: list[PackageRecord] = []
    for where, package in packages_of(spec):
        key = stored_package(package.source)
        row = state.packages.get(key) if key else None
        if not key:
            continue
        if row is None or not row.stored:
            text = f'the cluster does not have package "{package.source}"; give its path as source'
            problems.append(Diagnostic((*where, "source"), text))
        elif row.user != caller.name and not is_operator(caller.user) and key not in present:
            text = f'package "{package.source}" is not yours; give the path of your own as source'
            problems.append(Diagnostic((*where, "source"), text))
        elif package.sha256 not in ("", row.sha256):
            text = f'package "{package.source}" has checksum {row.sha256}'
            problems.append(Diagnostic((*where, "sha256"), text))
        else:
            used.append(row)
    if problems:
        count = counted(len(problems), "problem")
        raise SpecError(f'job "{spec.name}" has {count}', details=[str(each) for each in problems])
    for row in used:
        _touch(state, row)


def disown(state: AppMasterState, user: str) -> None:
    """Take a user's name from all packages, because a later user of that name is another person."""
    for key in state.packages.where("user", user):
        row = state.packages[key]
        if uses.is_package_used(state, row.package):
            state.packages.put(row.package, msgspec.structs.replace(row, user=""))
        else:
            state.packages.drop(row.package)


def on_timer(state: AppMasterState) -> None:
    """Drop uploads that were abandoned, and packages that no job has used for long."""
    config = state.config
    old = [
        row
        for row in state.packages.values()
        if row.used_s + (config.package_keep_s if row.stored else config.upload_s) <= state.now_s
    ]
    for row in old:
        if uses.is_package_used(state, row.package):
            _touch(state, row)
        else:
            state.packages.drop(row.package)
    begin(state)


# ---- room


def _make_room(state: AppMasterState, body: UploadPackage) -> None:
    """Drop the packages that were not used for the longest time, until ``body`` fits.

    Raises:
        Refused: packages that jobs use, or that have just been sent, leave no room.
    """
    config = state.config
    total, count = packages_bytes(state), len(state.packages)
    if total + body.size_bytes <= config.packages_bytes_max and count < config.packages_max:
        return
    idle = [
        row
        for row in state.packages.values()
        if row.used_s + (config.package_fresh_s if row.stored else config.upload_s) <= state.now_s
        and not uses.is_package_used(state, row.package)
    ]
    excess = total + body.size_bytes - config.packages_bytes_max
    chosen: list[PackageRecord] = []
    for row in sorted(idle, key=lambda each: each.used_s):
        if excess <= 0 and count < config.packages_max:
            break
        chosen.append(row)
        excess, count = excess - row.size_bytes, count - 1
    if excess > 0 or count >= config.packages_max:
        in_use = sum(
            row.size_bytes for row in state.packages.values() if uses.is_package_used(state, row.package)
        )
        raise Refused(
            f'cannot store package "{body.name}": the cluster has no room for it',
            details=[
                f"{format_bytes(body.size_bytes)}; {counted(len(state.packages), 'package')} take "
                f"{format_bytes(total)} of {format_bytes(config.packages_bytes_max)}",
                f"jobs use {format_bytes(in_use)}; the rest was named in the last "
                f"{format_duration(config.package_fresh_s)}, or is being sent",
            ],
            hint="galaxy package list --all; remove jobs, or give every AppMaster a higher --packages-max "
            "(GALAXY_PACKAGES_MAX=4G galaxy up)",
        )
    for row in chosen:
        state.packages.drop(row.package)


# ---- rows


def _touch(state: AppMasterState, row: PackageRecord) -> PackageRecord:
    row = msgspec.structs.replace(row, used_s=state.now_s)
    state.packages.put(row.package, row)
    begin(state)
    return row


def _find(state: AppMasterState, package: str, user: UserRecord | None) -> PackageRecord:
    """Return the package with this id or source, if ``user`` owns it or is an operator.

    Raises:
        NotFound: there is none, or it is another user's.
    """
    row = state.packages.get(stored_package(package) or package)
    if row is None or not (is_operator(user) or (user is not None and row.user == user.user)):
        raise NotFound(f'there is no package "{package}" of yours', hint="galaxy package list")
    return row


def _owner(row: PackageRecord) -> str:
    return f'user "{row.user}"' if row.user else "a user who was removed"


def _view(row: PackageRecord, jobs: Iterable[JobRecord] = ()) -> PackageView:
    names, more = uses.shown(jobs)
    return PackageView(
        package=row.package,
        source=stored_source(row.package, row.name),
        name=row.name,
        user=row.user,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        stored=row.stored,
        used_s=row.used_s,
        jobs=names,
        more_jobs=more,
    )
