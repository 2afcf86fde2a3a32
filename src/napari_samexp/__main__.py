"""``python -m napari_samexp``: the command line."""

import os
import sys


def _forget_current_folder() -> None:
    """Take away what `-m` put first: shared files may lie there.

    What Python imported before this line it looked for there already. Only ``python -P -m``, or the command
    ``napari-samexp``, never does.
    """
    try:
        here = os.getcwd()  # noqa: PTH109 - pathlib would be imported from there
    except OSError:  # it was deleted
        return
    package = f"{here}{os.sep}napari_samexp{os.sep}"
    if not sys.flags.safe_path and sys.path[:1] == [here] and not __file__.startswith(package):
        del sys.path[0]


if __name__ == "__main__":
    _forget_current_folder()

    from napari_samexp.cli import main

    main()
