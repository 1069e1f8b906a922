"""``galaxy package``: package files that the cluster stores for the hosts that run a job."""

from __future__ import annotations

from typing import Final

import click

from galaxy.cli.lazy import Action, Command, LazyGroup
from galaxy.cli.options import Target, cluster_options, output_options, owners_options
from galaxy.cli.output import Output, format_time, print_err, print_out
from galaxy.cli.tables import job_names
from galaxy.client.package_staging import PackageFile
from galaxy.model.stored.package import CHUNK_BYTES
from galaxy.units import MIB, format_bytes

LARGE_BYTES: Final = 16 * MIB
"""Files of this size take long enough to say so."""
EXAMPLES = """\
  galaxy package push app-1.0.tar.gz     store it; prints the source to name in a job file
  galaxy package list                    your packages, and the jobs that use them
  galaxy package remove galaxy://ID/NAME remove one that no job uses
"""


@click.group(cls=LazyGroup, aliases={"ls": "list", "rm": "remove"}, examples=EXAMPLES)
def package() -> None:
    """Packages that the cluster stores. `galaxy job run` and `update` store those of a job file."""


@package.command(cls=Action)
@click.argument("file")
@cluster_options
def push(target: Target, file: str) -> None:
    """Store a package file in the cluster and print its source for job files.

    It is kept while a job uses it, and for a day after that.
    """
    with target.open_to_change() as galaxy:
        galaxy.upload_progress = print_upload
        view = galaxy.store_package(file)
    print_out(view.source)


def print_upload(file: PackageFile, sent_bytes: int) -> None:
    """Say on stderr that a large file is being sent, at its beginning and after each tenth."""
    tenth = max(1, file.size_bytes // 10)
    before = max(0, sent_bytes - CHUNK_BYTES)
    if file.size_bytes >= LARGE_BYTES and (before == 0 or sent_bytes // tenth > before // tenth):
        percent = 100 * sent_bytes // file.size_bytes
        print_err(f"sending {file.name}: {percent} % of {format_bytes(file.size_bytes)}")


@package.command("list", cls=Command)
@owners_options("Packages")
@output_options
@cluster_options
def list_(target: Target, output: Output, user: str, every: bool) -> None:
    """List packages: sizes, owners, when they were last used, and the jobs that use them."""
    with target.open() as galaxy:
        packages = galaxy.packages(user=user, all=every)
    if output.print_data(packages, [one.source for one in packages]):
        return
    if not packages:
        print_err("no packages")
        return
    rows = [
        [
            one.source,
            format_bytes(one.size_bytes),
            one.user,
            format_time(one.used_s),
            job_names(one) if one.stored else "(being sent)",
        ]
        for one in packages
    ]
    output.print_table(["SOURCE", "SIZE", "OWNER", "LAST USED", "USED BY"], rows)


@package.command(cls=Action)
@click.argument("package")
@cluster_options
def remove(target: Target, package: str) -> None:
    """Remove a package that no job uses. PACKAGE is its source or its id."""
    with target.open_to_change() as galaxy:
        view = galaxy.remove_package(package)
    print_err(f"package {view.name} removed")
