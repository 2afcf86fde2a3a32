"""``python -m napari_samexp``: the command line."""

from napari_samexp.cli import main

if __name__ == "__main__":
    main()
