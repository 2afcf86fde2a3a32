"""What the docs say by asking the program, whenever they are built; a hook of MkDocs.

``reference/cli.md`` is the help of every command. ``<!-- settings -->`` on a page becomes the table of
tracking settings, ``<!-- keys -->`` those of keys and clicks. A new page at the top of the folder is found by itself.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer.main
from typer.cli import get_docs_for_click

from napari_samexp._qt.shortcuts import as_markdown
from napari_samexp.cli import PROGRAM, app
from napari_samexp.tracking.settings import TrackSettings

PAGE = "reference/cli.md"
SETTINGS, KEYS = "<!-- settings -->", "<!-- keys -->"


def on_config(config: Any) -> Any:
    """Give pages of this folder that the navigation does not name a place at its end, under *About*."""
    named = str(config.nav)
    about = next(entry["About"] for entry in config.nav if "About" in entry)
    for path in sorted(Path(config.docs_dir).glob("*.md")):
        if f"'{path.name}'" not in named:
            about.append(path.name)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the page of the command line to those that lie in the folder."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=command_line()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in tables."""
    return markdown.replace(SETTINGS, settings()).replace(KEYS, keys())


def command_line() -> str:
    """Return the help of every command as Markdown."""
    command = typer.main.get_command(app)
    with command.make_context(PROGRAM, [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name=PROGRAM, title="Command line")
    text = text.replace("\b\n", "")  # tells a terminal not to wrap; a browser shows a box
    text = re.sub(r"^\n+(?=  \S)", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"^  (?=napari-samexp )", "    ", text, flags=re.MULTILINE)  # the examples, as code
    # an argument's name is what one types, not a placeholder of HTML
    return text.replace("```console", "```text")


def settings() -> str:
    """Return the tracking settings as a Markdown table: name, option, default, words."""
    options = _options()
    rows = ["| setting | in a shell | default | what it is |", "|---|---|---|---|"]
    for knob in fields(TrackSettings):
        default = _default(knob.default)
        words = knob.metadata["help"]
        rows.append(f"| {knob.name} | {options.get(words, '')} | {default} | {words} |")
    return "\n".join(rows)


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "the model's own" if value is None else str(value)


def keys() -> str:
    """Return the keys and clicks of the docks, as the help in napari shows them, a level deeper."""
    return as_markdown().partition("\n")[2].replace("\n## ", "\n### ")


def _options() -> dict[str, str]:
    """Return the options of `track` by their help, which is that of the setting."""
    track = typer.main.get_command(app).commands["track"]  # type: ignore[attr-defined]
    return {
        option.help: " ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        for option in track.params
        if getattr(option, "help", None)
    }
