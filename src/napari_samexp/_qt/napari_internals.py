"""Everything that relies on internals of napari or vispy: here, so that nothing else does.

Each function says why there is no public way, and which upstream issue would give one.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

__all__ = ["called_by_slicing", "keep_gl_programs", "unwrapped"]


def unwrapped(napari_viewer: Any) -> Any:
    """Return the viewer behind the proxy that napari passes to plugins.

    The proxy (napari's ``PublicOnlyProxy``) wraps each layer anew at every access, so that two looks at one
    layer are never the same object, and layers cannot be recognised. `__wrapped__` is wrapt's documented
    attribute; for the trouble with proxies passed back to napari see napari/napari#3782 and #5767.
    """
    return getattr(napari_viewer, "__wrapped__", napari_viewer)


def called_by_slicing(depth: int = 2) -> bool:
    """Return whether the code `depth` calls up the stack is napari's slicing of a layer for display.

    What slicing reads is only drawn, so a placeholder may stand in for a frame that is still being decoded;
    everyone else must get exact data. napari does not tell an array why it is indexed; asynchronous slicing
    that shows placeholders is napari/napari#4795. If napari moves its slicing, all reads are exact and slow.
    """
    module = str(sys._getframe(depth).f_globals.get("__name__", ""))
    return module.startswith("napari.layers.") and module.endswith("._slice")


@cache
def keep_gl_programs() -> None:
    """Stop vispy from deleting shader programs while software rendering is used.

    With Mesa's llvmpipe (seen with 22.3.6), the first drawing after a program was deleted crashes the process:
    in napari alone, removing one Points layer is enough (as in napari/napari#6472, on Windows). The dock
    removes its points when it closes or when their image goes. vispy has no switch for this. A program that
    is not deleted costs some 100 KB.
    """
    from vispy.gloo.glir import GlirProgram

    delete = GlirProgram.delete

    def delete_unless_software(program: Any) -> None:
        if not _software_rendering():
            delete(program)

    GlirProgram.delete = delete_unless_software


@cache
def _software_rendering() -> bool:
    """Whether OpenGL runs on the CPU; only known while a context is current, as when something is drawn."""
    from vispy.gloo import gl

    renderer = str(gl.glGetParameter(gl.GL_RENDERER)).lower()
    return "llvmpipe" in renderer or "softpipe" in renderer
