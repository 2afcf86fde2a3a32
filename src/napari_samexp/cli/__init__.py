"""The command line: ``info | record | track | batch | compare | evaluate | export | posenc | demo``."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from napari_samexp import __version__
from napari_samexp._text import one_line
from napari_samexp._urls import redacted
from napari_samexp.cli import batch, compare, demo, evaluate, export, info, posenc, record, track
from napari_samexp.cli.options import flat_options, normalized
from napari_samexp.cli.progress import Stopped
from napari_samexp.errors import NO_MEMORY, SamexpError, is_out_of_memory

__all__ = ["app", "main", "run"]

OK, FAILED, BAD_INPUT, STOPPED, PIPE_CLOSED = 0, 1, 2, 130, 141
PROGRAM = "napari-samexp"
DEBUG = "--debug"

app = typer.Typer(
    name=PROGRAM,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _command in (
    info.info, record.record, track.track, batch.batch, compare.compare, evaluate.evaluate, export.export,
    posenc.posenc, demo.demo,
):  # fmt: skip
    app.command()(flat_options(_command))


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show the traceback of an error; also after a command.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Track what one image shows through videos that were never prompted, with SAM 2's memory.

    Record a prompt on an image, keep it as a prior, and track any number of videos with it:

    \b
      napari-samexp record cat.jpg --point 320,200 --out cat.safetensors
      napari-samexp track fox.mp4 --prior cat.safetensors --out fox.zarr --overlay fox_labels.mp4
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line of this process and exit."""
    if not sys.warnoptions and DEBUG not in sys.argv:
        warnings.simplefilter("ignore")  # of libraries, for programmers
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names that the terminal cannot show
    # Before torch is imported: on a busy machine, threads that spin while they wait made encoding an image
    # five times as slow as threads that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    status = run(sys.argv[1:])
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status.

    Returns
    -------
    int
        0; 2 after bad input and 130 after Ctrl-C, with one sentence on standard error; 1 after a fault of
        the program; 141 if the reader of the output is gone.
    """
    debug, given = _without_debug(arguments)
    try:
        status = _invoke(normalized(given))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return _failed("Stopped.", STOPPED)
    except Stopped as stop:
        return _failed(str(stop), STOPPED)
    except Exception as error:
        if debug:
            typer.echo(redacted("".join(traceback.format_exception(error))), err=True, nl=False)
        return _failed(*_explained(error))


def _invoke(arguments: list[str]) -> int:
    # calling the app would print errors in boxes and turn Ctrl-C into an exit
    command = typer.main.get_command(app)
    try:
        with command.make_context(PROGRAM, arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return OK


def _explained(error: Exception) -> tuple[str, int]:
    if isinstance(error, SamexpError):
        return str(error), BAD_INPUT
    if isinstance(error, typer.TyperException):
        return _usage(error), BAD_INPUT
    if is_out_of_memory(error):
        return NO_MEMORY, BAD_INPUT
    reason = one_line(error) or "no reason given"
    return (
        f"{type(error).__name__}: {reason}; this is a fault of napari-samexp, which {DEBUG} shows in full.",
        FAILED,
    )


def _usage(error: typer.TyperException) -> str:
    sentence = one_line(error.format_message())
    context = getattr(error, "ctx", None)
    where = f"{context.command_path} --help" if context else f"{PROGRAM} --help"
    return sentence if sentence.endswith(("?", ")")) else f"{sentence.rstrip('.')}; see {where}."


def _failed(sentence: str, status: int) -> int:
    try:
        typer.echo(f"{PROGRAM}: {one_line(redacted(sentence))}", err=True)
    except BrokenPipeError:
        _drop_output()
    return status


def _without_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether ``--debug`` is given anywhere before a ``--``, and the other arguments."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != DEBUG]
    return len(options) < end, [*options, *arguments[end:]]


def _drop_output() -> None:
    """Send output to the null device, or the interpreter complains about it when it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(null, stream.fileno())
        except (OSError, ValueError):  # not a file, as in tests
            continue
