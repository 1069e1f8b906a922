"""Commands on job files, which need no cluster: validate, init, import, schema."""

from __future__ import annotations

import json
from pathlib import Path

import click

from galaxy.cli.lazy import Action, Command
from galaxy.cli.options import file_argument
from galaxy.cli.output import FORMATS, print_err, print_out
from galaxy.errors import GalaxyError, SpecError, UsageError
from galaxy.ids import NAME
from galaxy.model.jobspec.diagnostics import Diagnostic, Mark, nearest_mark
from galaxy.model.jobspec.diagnostics import Path as FieldPath
from galaxy.model.jobspec.spec import JobType


@click.command(
    cls=Action,
    examples="""\
  galaxy job validate job.yaml
  galaxy job validate - < job.json
""",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option("--quiet", "-q", is_flag=True, help="Print nothing when the files are valid.")
def validate(files: tuple[str, ...], quiet: bool) -> None:
    """Check job files, and the files that they name, and report every problem with its line."""
    from galaxy.client.job_loading import load
    from galaxy.model.jobspec.rules import likely_mistakes

    errors: list[SpecError] = []
    for file in files:
        try:
            spec, _ = load(file)
        except SpecError as error:
            errors.append(error)
            continue
        for line in likely_mistakes(spec):
            print_err(f"galaxy: warning: {file}: {line}")
        if not quiet:
            print_out(f"{file}: job {spec.name} is valid")
    for earlier in errors[:-1]:
        print_err(f"galaxy: {earlier}")
    if errors:
        raise errors[-1]


@click.command(
    cls=Command,
    examples="""\
  galaxy job init web > job.yaml
  galaxy job init web.yaml                 write that file
  galaxy job init nightly.yaml --type batch
""",
)
@click.argument("name", default="hello")
@click.option(
    "--type",
    "type_",
    type=click.Choice(["monitor", "service", "batch"]),
    default="service",
    show_default=True,
)
@click.option("-o", "--output", "target", metavar="FILE", help="Write to FILE; it must not exist yet.")
def init(name: str, type_: str, target: str | None) -> None:
    """Print a commented job file for a job called NAME, or write it if NAME is a file name."""
    from galaxy.model.jobspec.template import template

    if Path(name).suffix in (".yaml", ".yml"):
        name, target = Path(name).stem, target or name

    if Path(name).suffix in (".toml", ".json"):
        raise UsageError(
            f'cannot write "{name}": a commented job file is YAML',
            hint=f"galaxy job init {Path(name).stem}.yaml",
        )
    if not NAME.fullmatch(name):
        raise UsageError(f'"{name}" is not a name for a job', hint="lower-case letters, digits and `-`")
    _write_text(template(name, JobType(type_)), target)


@click.command(
    "import",
    cls=Command,
    examples="""\
  galaxy job import app.json > job.yaml
  galaxy job import app.json -o job.yaml
""",
)
@file_argument
@click.option("-o", "--output", "target", metavar="FILE", help="Write to FILE; it must not exist yet.")
def import_(file: str, target: str | None) -> None:
    """Convert a job file of Galaxy 3 (JSON).

    Misspelled fields, and fields without a meaning here, become warnings on stderr.
    """
    from galaxy.client.source import job_file
    from galaxy.client.source.yaml_format import write_yaml
    from galaxy.model.jobspec import galaxy3, parsing, writing
    from galaxy.model.jobspec.diagnostics import spec_error

    old = job_file.read(file)
    adopted = galaxy3.import_galaxy3(old.tree)
    for warning in _in_order(adopted.warnings, old.marks):
        print_err(f"galaxy: warning: {_with_position(warning, old.name, old.marks)}")
    result = parsing.parse(adopted.tree)
    unsupported = [diagnostic for diagnostic in result.diagnostics if diagnostic.unsupported]
    if len(unsupported) < len(result.diagnostics):
        raise spec_error(result.diagnostics, name=old.name, marks={})
    for diagnostic in unsupported:
        print_err(f"galaxy: warning: {diagnostic}")
    _write_text(
        f"# Imported from {Path(old.name).name}, a job of Galaxy 3.\n"
        + write_yaml(writing.to_tree(result.spec)),
        target,
    )


@click.command(cls=Command, examples="  galaxy job schema > job.schema.json\n")
def schema() -> None:
    """Print the JSON Schema of job files, which editors use to complete and check them."""
    from galaxy.model.jobspec import schema as made

    print_out(json.dumps(made.schema(), indent=2))


def _write_text(text: str, target: str | None) -> None:
    """Print ``text``, or write it to the new file ``target``.

    Raises:
        UsageError: the file exists, or ``target`` looks like an output format.
    """
    if target is None:
        print_out(text.rstrip("\n"), raw=True)
        return
    if target in FORMATS:
        hint = f"-o {target}.yaml, or > FILE"
        raise UsageError(f"-o names a file here, not the format {target}", hint=hint)
    try:
        with open(target, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{target} exists already", hint="another name, or remove it first") from error
    except OSError as error:
        raise GalaxyError(f"cannot write {target}: {error.strerror}") from error
    print_err(f"wrote {target}")


def _in_order(diagnostics: tuple[Diagnostic, ...], marks: dict[FieldPath, Mark]) -> list[Diagnostic]:
    return sorted(diagnostics, key=lambda diagnostic: nearest_mark(diagnostic.path, marks) or Mark(0, 0))


def _with_position(diagnostic: Diagnostic, name: str, marks: dict[FieldPath, Mark]) -> str:
    mark = nearest_mark(diagnostic.path, marks)
    return f"{name}:{mark.line}:{mark.column}: {diagnostic}" if mark else f"{name}: {diagnostic}"
