"""Make tests/data/layouts.json.gz: the keys and shapes of Meta's 12 files of SAM 1, SAM 2, SAM 2.1 and EdgeTAM.

    python tests/data/select_layouts.py SOURCE

SOURCE is a folder with a JSON file for each checkpoint, with "file", "wrap" and "keys" (key to shape and type).
Every tensor in them is float32, but for BatchNorm's counters, which are int64.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

COUNTER = ".num_batches_tracked"
TARGET = Path(__file__).resolve().parent / "layouts.json.gz"


def main(source: Path) -> None:
    """Write the layouts of all SAM files in `source`."""
    layouts = {}
    for path in sorted([*source.glob("sam*.json"), *source.glob("edgetam*.json")]):
        described = json.loads(path.read_text())
        for key, (shape, kind) in described["keys"].items():
            if (kind, shape) != ("int64", []) if key.endswith(COUNTER) else kind != "float32":
                raise ValueError(f"{path} has {key} of {kind}")
        shapes = {key: shape for key, (shape, _) in described["keys"].items()}
        layouts[described["file"]] = {"flat": "flat" in described["wrap"], "shapes": shapes}
    text = json.dumps(layouts, separators=(",", ":"), sort_keys=True)
    TARGET.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
