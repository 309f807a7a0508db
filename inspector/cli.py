"""The command ``torch-inspector``: the app, training without a browser, and a check of the setup.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from inspector.errors import InspectorError

if TYPE_CHECKING:
    from inspector.config import RunConfig


class _DefaultUi(TyperGroup):
    """``torch-inspector [RUNS_DIR]`` means ``torch-inspector ui [RUNS_DIR]``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        plain = {"--help", "--version", *self.commands}
        if not args or args[0] not in plain:
            if args and not Path(args[0]).exists():
                self._refuse_slip(args[0])
            args = ["ui", *args]
        return super().parse_args(ctx, args)

    def _refuse_slip(self, word: str) -> None:
        """A slip of the pen must not serve an empty folder of that name."""
        meant = difflib.get_close_matches(word, self.commands, n=1, cutoff=0.75)
        if meant:
            raise InspectorError(
                f"There is neither a command nor a folder named {word!r}; did you mean "
                f"{meant[0]}? For a new folder of runs: torch-inspector ui {word}."
            )


app = typer.Typer(
    cls=_DefaultUi,
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="A live debugger for PyTorch training. Without a command: ui.",
)

RunsDir = Annotated[Path, typer.Argument(help="Folder of runs; need not exist yet.")]


@app.command()
def ui(
    runs_dir: RunsDir = Path("runs"),
    port: Annotated[int | None, typer.Option(help="Default: the first free one from 8501.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback lets others try.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further host name under which the app is reached.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the browser.")] = True,
) -> None:
    """Serves the app; the link to it is printed last."""
    from inspector.server.launch import serve

    hosts = tuple(allow_host or ())
    serve(runs_dir, host=host, port=port, open_browser=browser, allowed_hosts=hosts)


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(help="A preset, or a JSON file such as a run's run.json.")
    ] = "",
    headless: Annotated[bool, typer.Option("--headless", help="Train without the app.")] = False,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    run_dir: Annotated[Path, typer.Option(help="Folder in which the run is made.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split, weights and shuffling.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as lr=0.01 or controls.clip=norm."),
    ] = None,
    resume: Annotated[
        str, typer.Option(help="Go on from RUN@STEP, RUN@last, RUN@best or a file.")
    ] = "",
) -> None:
    """Trains a preset or a configuration, with the app or (--headless) without it."""
    from inspector import headless as console

    if resume and not config:
        given = [*(settings or []), *([] if steps is None else [f"steps={steps}"])]
        made = _going_on(resume, run_dir, given)
    else:
        made = _configuration(config, settings or [], headless=headless, steps=steps, seed=seed)
        made = dataclasses.replace(made, resume=resume or made.resume)
    if headless:
        raise typer.Exit(console.follow(run_dir / console.start(made, run_dir, name)))
    from inspector.server.launch import serve  # before the training competes for the processor

    console.start(made, run_dir, name)
    serve(run_dir)


@app.command()
def fork(
    run: Annotated[str, typer.Argument(help="RUN, RUN@STEP, RUN@last, RUN@best or RUN@earliest.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as lr=0.01, clip=norm or schedule=cosine."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Train to this step.")] = None,
    run_dir: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the new run.")] = None,
) -> None:
    """Goes on from another run's checkpoint with other settings, on the same batches.

    RUN alone is its present step while it is live, else its last checkpoint. The snapshots that
    a live run holds in memory are found by their STEP too; RUN@earliest is the first of them.
    """
    from inspector import headless as console
    from inspector.training.forking import fork_reference

    given = [*(settings or []), *([] if steps is None else [f"steps={steps}"])]
    reference = fork_reference(run, run_dir)
    made = _going_on(reference, run_dir, given)
    raise typer.Exit(
        console.follow(
            run_dir / console.start(made, run_dir, name or f"{run.partition('@')[0]}-fork")
        )
    )


@app.command()
def check(
    what: Annotated[str, typer.Argument(help="overfit or reproducibility.")],
    config: Annotated[str, typer.Argument(help="A preset, or a JSON file as of a run.")] = "",
    steps: Annotated[int | None, typer.Option(help="At most so many, or so many of each.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value.")] = None,
) -> None:
    """Learns one batch by heart, or runs twice and compares; exit code 1 when it fails."""
    from inspector.headless import check as run_check

    made = _configuration(config, settings or [], headless=True, steps=None, seed=None)
    raise typer.Exit(run_check(what, made, steps, typer.echo))


@app.command()
def diagnose(
    run: Annotated[str, typer.Argument(help="Name of a run in --run-dir, or its folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
    run_dir: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    threshold: Annotated[
        list[str], typer.Option(help="Another limit, such as overfitting.gap=0.2.")
    ] = [],  # noqa: B006
    rules: Annotated[
        list[Path], typer.Option(help="A Python file that registers rules of your own.")
    ] = [],  # noqa: B006
) -> None:
    """Says what is wrong with a run; exit code 1 when a finding is critical."""
    from inspector.diagnosis.command import diagnose_command

    raise typer.Exit(
        diagnose_command(
            run, typer.echo, runs_dir=run_dir, as_json=as_json, changed=threshold, rules=rules
        )
    )


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Name of a run in --run-dir, or its folder.")],
    to: Annotated[str, typer.Option("--to", help="Format; see docs/exports.md.")],
    out: Annotated[Path | None, typer.Option(help="File or folder to write.")] = None,
    checkpoint: Annotated[str, typer.Option(help="last, best or step-…, for a model.")] = "last",
    form: Annotated[str, typer.Option(help="long or wide, for a table.")] = "long",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
    run_dir: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
) -> None:
    """Writes a run's model, telemetry, report or configuration for other tools."""
    from inspector.exports.command import export_command

    export_command(
        run, to, typer.echo, out=out, checkpoint=checkpoint, form=form, force=force,
        as_json=as_json, runs_dir=run_dir,
    )  # fmt: skip


@app.command(name="import")
def import_(
    source: Annotated[str, typer.Argument(help="What wrote it: tensorboard.")],
    path: Annotated[Path, typer.Argument(help="An event file, or a folder with some.")],
    run_dir: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    name: Annotated[str, typer.Option(help="Name of the run.")] = "",
) -> None:
    """Makes runs of a foreign tool's logs, to be looked at beside our own."""
    from inspector.exports.command import import_command

    import_command(source, path, typer.echo, runs_dir=run_dir, name=name)


@app.command()
def doctor() -> None:
    """Says what is installed, what is missing and what to do about it."""
    from inspector.doctor import report

    raise typer.Exit(report())


def main() -> None:
    """A refusal is one sentence and exit code 2, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # terminals that cannot show an arrow
    try:
        app()
    except InspectorError as error:
        typer.echo(f"torch-inspector: {error}", err=True)
        sys.exit(2)


def _going_on(reference: str, run_dir: Path, settings: list[str]) -> RunConfig:
    from inspector.training.forking import config_from, parse

    return config_from(reference, run_dir, parse(settings))


def _configuration(
    wanted: str, settings: list[str], *, headless: bool, steps: int | None, seed: int | None
) -> RunConfig:
    from inspector import presets
    from inspector.config import RunConfig
    from inspector.errors import ConfigError

    preset = presets.find(wanted) if wanted else presets.DEFAULT
    if preset is not None:
        config = preset.config
        if headless:  # nobody watches: full speed, and nobody is there to resume it
            for setting in ("controls.max_steps_per_s=null", "controls.on_nonfinite=continue"):
                config = config.with_setting(setting)
    elif Path(wanted).exists() or wanted.endswith(".json"):
        config = RunConfig.from_file(Path(wanted))
    else:
        raise ConfigError(
            f"There is neither a preset nor a file named {wanted!r}; the presets are "
            f"{', '.join(preset.key for preset in presets.PRESETS)}."
        )
    if steps is not None:
        config = config.with_setting(f"steps={steps}")
    if seed is not None:
        config = config.with_setting(f"seed={seed}")
    for setting in settings:
        config = config.with_setting(setting)
    return config


if __name__ == "__main__":
    main()
