"""A way around a crash of Mesa's software renderer, on which remote desktops and virtual machines draw."""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["spare_programs"]


@cache
def spare_programs() -> None:
    """Have vispy leave its shader programs alone where the screen is drawn by software.

    With Mesa's llvmpipe (seen with 22.3.6), the next drawing after a program was deleted ends the process: in
    napari alone, removing one points layer is enough. The dock removes its points when it is closed, or when
    the image goes, and nobody shall lose a napari over that. A program that is not deleted costs some 100 KB.
    """
    from vispy.gloo.glir import GlirProgram

    delete = GlirProgram.delete

    def spared(program: Any) -> None:
        if not _drawn_by_software():
            delete(program)

    GlirProgram.delete = spared


@cache
def _drawn_by_software() -> bool:
    """Whether the processor draws; asked while something is drawn, since only then there is an answer."""
    from vispy.gloo import gl

    name = str(gl.glGetParameter(gl.GL_RENDERER)).lower()
    return "llvmpipe" in name or "softpipe" in name
