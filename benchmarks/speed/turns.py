"""What the speed benchmarks share: implementations in processes of their own that take turns, A B C A B C ...

Two halves. A peer's script imports this where only numpy and torch are, gives `answer` its jobs and then does one
whenever it is told to. The benchmark starts such scripts as `Peer`, lets them take turns, and reports the
median of the ratios within a turn, since what disturbs a machine for a minute disturbs all who have their turn in it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KINDS = {"wall": "ms", "cpu": "ms"}  # what ratios are taken of

Figures = dict[str, Any]  # of one job: wall and cpu in ms, peak in MiB, stages in CPU ms
Job = Callable[[], object]


# ---- in the peer's process


class Stages:
    """Adds up the processor's milliseconds that functions take, by stage, between two jobs."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}

    def watch(self, owner: Any, **names: str) -> None:
        """Time methods of an object: the name of each stage, and of the method that is it."""
        for stage, name in names.items():
            setattr(owner, name, self._timed(stage, getattr(owner, name)))

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return function(*given, **named)
            finally:
                self.taken[stage] = self.taken.get(stage, 0.0) + 1000 * (time.process_time() - began)

        return call


def peak_mib() -> float:
    """Return the largest resident size that this process has had."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mib() -> float:
    """Return what of this process is in memory now, 0 where that cannot be read."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def answer(jobs: Mapping[str, Job], stages: Stages | None = None) -> None:
    """Do the job whose name comes on standard input and answer with its figures, until "stop" comes."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries, and the processes they start, may talk there
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name == "stop":
            break
        if stages is not None:
            stages.taken = {}
        wall, cpu = time.perf_counter(), time.process_time()
        found = jobs[name]()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        figures: Figures = {"wall": 1000 * wall, "cpu": 1000 * cpu, "peak": peak_mib(), "rss": resident_mib()}
        if stages is not None:
            figures["stages"] = dict(stages.taken)
        if isinstance(found, dict):
            figures |= found
        print(json.dumps(figures), file=out, flush=True)


# ---- in the benchmark's process


class Peer:
    """A script that answers; see `answer`.

    Parameters
    ----------
    name : str
        What it is called in reports.
    python : str
        The Python that runs it.
    script : str
        Its file in this folder.
    log : Path, optional
        Where to write what it prints, which is of interest only where it does not start.
    nice : int
        How far others have precedence on the processor while all prepare themselves.
    environment : mapping of str to str, optional
        Is added to this process's.
    """

    def __init__(
        self,
        name: str,
        python: str | Path,
        script: str,
        *arguments: object,
        log: Path | None = None,
        nice: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._ready = False
        before = ["nice", "-n", str(nice)] if nice else []
        shown: Any = None if os.environ.get("SHOW") else subprocess.DEVNULL
        with log.open("w") if log else nullcontext(shown) as shown:
            self._process = subprocess.Popen(
                [*before, str(python), "-P", str(HERE / script), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=shown,
                text=True,
                bufsize=1,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                process_group=0,  # with the processes that a compiler starts
            )

    def wait_until_ready(self) -> None:
        while not self._ready:
            line = self._process.stdout.readline() if self._process.stdout else ""
            if not line:
                raise SystemExit(f"{self.name} did not start; run with SHOW=1 in the environment to see why.")
            self._ready = line.strip() == "ready"  # what comes before is talk of libraries

    def do(self, job: str) -> Figures:
        assert self._process.stdin is not None
        with suppress(OSError):  # it may have ended
            self._process.stdin.write(job + "\n")
        line = self._read()
        if not line:
            raise SystemExit(f"{self.name} ended; run with SHOW=1 in the environment to see why.")
        figures: Figures = json.loads(line)
        return figures

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        for last in (lambda: self._process.stdin.write("stop\n"), self._process.stdin.close):
            with suppress(OSError):  # it may have ended
                last()
        self._process.stdout.close()
        self._process.wait()

    @property
    def code(self) -> int | None:
        """What it ended with, -9 where it was killed; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it, and what it has started, whatever it is doing; it has to be stopped all the same."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def running(peers: Sequence[Peer]) -> Any:
    """Wait until all peers are ready; stop them at the end, however it comes."""
    try:
        for peer in peers:
            peer.wait_until_ready()
        yield peers
    finally:
        for peer in peers:
            peer.stop()


def side_by_side(
    peers: Sequence[Peer], job: str, times: int, until: float = math.inf
) -> dict[Peer, list[Figures]]:
    """Let all do a job so many times, at the same time; return the figures of those that did.

    Who is not done at `until`, of `time.monotonic`, is killed.
    """
    done: dict[Peer, list[Figures]] = {}

    def work(peer: Peer) -> None:
        with suppress(SystemExit, ValueError):  # it ended, perhaps within a line: it is not among those done
            peer.wait_until_ready()
            figures = [peer.do(job) for _ in range(times)]
            done[peer] = figures

    threads = {peer: threading.Thread(target=work, args=(peer,), daemon=True) for peer in peers}
    for thread in threads.values():
        thread.start()
    for peer, thread in threads.items():
        thread.join(None if until == math.inf else max(0.0, until - time.monotonic()))
        if thread.is_alive():
            peer.kill()
            thread.join()
    return {peer: done[peer] for peer in peers if peer in done}


def take_turns(
    peers: Sequence[Peer], job: str, turns: int, warm_up: int = 1, quiet: bool = False
) -> dict[str, list[Figures]]:
    """Let all do a job in turns; return by peer the figures of each turn but those of the warm-up."""
    rows: dict[str, list[Figures]] = {peer.name: [] for peer in peers}
    for turn in range(warm_up + turns):
        for peer in peers:
            figures = peer.do(job)
            if turn >= warm_up:
                rows[peer.name].append(figures)
        if not quiet:
            print(f"{job}: turn {turn + 1} of {warm_up + turns}", file=sys.stderr)
    return rows


# ---- figures


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Return the median of values and their quartiles in words."""
    low, middle, high = np.percentile(list(values), (25, 50, 75))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratios(rows: Mapping[str, Sequence[Figures]], name: str, base: str, kind: str) -> list[float]:
    """Return what a peer took of what another took, turn by turn."""
    return [a[kind] / b[kind] for a, b in zip(rows[name], rows[base])]


def middle(figures: Sequence[Figures], kind: str) -> float:
    """Return the median of one kind of figure."""
    return float(np.median([one[kind] for one in figures]))


def show(rows: Mapping[str, Sequence[Figures]], ours: Sequence[str]) -> dict[str, Any]:
    """Print what each took, and the ratios of ours to each of the others; return the same for JSON."""
    report: dict[str, Any] = {"medians": {}, "ratios": {}}
    for name, figures in rows.items():
        medians = {kind: middle(figures, kind) for kind in ("wall", "cpu")}
        medians["peak"] = max(one["peak"] for one in figures)
        report["medians"][name] = {kind: round(value, 2) for kind, value in medians.items()}
        stages = stages_of(figures)
        if stages:
            report["medians"][name]["stages"] = stages
        print(
            f"{name:14} wall {medians['wall']:8.1f} ms   CPU {medians['cpu']:8.1f} ms   "
            f"peak {medians['peak']:6.0f} MiB   " + "  ".join(f"{k} {v:.0f}" for k, v in stages.items())
        )
    for name in ours:
        for base in [other for other in rows if other not in ours]:
            for kind in KINDS:
                values = ratios(rows, name, base, kind)
                low, mid, high = np.percentile(values, (25, 50, 75))
                report["ratios"][f"{name} / {base}, {kind}"] = [round(float(x), 4) for x in (mid, low, high)]
                print(f"{name} / {base}, {kind}: {spread(values)}")
    return report


def stages_of(figures: Sequence[Figures]) -> dict[str, float]:
    """Return the median CPU ms of each stage, and of what is in none."""
    names = list(dict.fromkeys(name for one in figures for name in one.get("stages", {})))
    found = {name: float(np.median([one["stages"].get(name, 0.0) for one in figures])) for name in names}
    if found:
        found["rest"] = float(np.median([one["cpu"] - sum(one["stages"].values()) for one in figures]))
    return {name: round(value, 1) for name, value in found.items()}


def machine() -> dict[str, Any]:
    """Return what a reader of the figures has to know of where they come from."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": [round(value, 1) for value in os.getloadavg()],
    }


def write(path: Path | None, benchmark: str, **parts: Any) -> None:
    """Write a report as JSON, if there is a path to write it to."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"benchmark": benchmark, "arguments": sys.argv[1:], "machine": machine(), **parts}
        path.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


# ---- weights


def random_weights(name: str, path: Path) -> Path:
    """Write a file of random numbers under the official keys of a model; return its path."""
    import torch

    from napari_samexp.sam.variants import VARIANTS, Sam1Variant
    from napari_samexp.sam.weights.loading import build

    torch.manual_seed(0)
    variant = VARIANTS[name]
    state = {key: _random_like(key, tensor) for key, tensor in build(variant).state_dict().items()}
    if isinstance(
        variant, Sam1Variant
    ):  # under Meta's names, which are ours but for these; see `convert_state_dict`
        layers = {".mlp.layers.0.": ".mlp.lin1.", ".mlp.layers.1.": ".mlp.lin2."}
        for ours, theirs in layers.items():
            state = {key.replace(ours, theirs): value for key, value in state.items()}
    torch.save(state if isinstance(variant, Sam1Variant) else {"model": state}, path)
    return path


def _random_like(key: str, tensor: Any) -> Any:
    """Return numbers with which values neither vanish nor grow from layer to layer."""
    import torch

    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    if tensor.ndim < 2:
        return torch.full(tensor.shape, 0.0 if key.endswith(("bias", "running_mean")) else 1.0)
    return torch.randn(tensor.shape) / max(1, tensor[0].numel()) ** 0.5
