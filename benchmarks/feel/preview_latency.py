"""What the engine adds to the model's own time: starting a worker, and a click on a 1080p image.

    python -m benchmarks.feel.preview_latency [--model starter] [--clicks 40] [--side 512]

A click is timed until the chosen mask is there at the image's size, and until all masks are. Overhead is the time
until the chosen mask, less what the model took for the prompt. The image has been encoded before.
"""

from __future__ import annotations

import argparse
import json
import queue
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.feel.feel_tools import disc
from napari_samexp.engine import EngineClient, WorkerOptions
from napari_samexp.engine.messages.base import Reply
from napari_samexp.engine.messages.model import Loaded, LoadModel, Ready
from napari_samexp.engine.messages.prompts import ChosenMask, Preview, Previewed
from napari_samexp.engine.sharing import SharedImage
from napari_samexp.types import Prompt

WARM_UP = 3  # clicks, the first of which encodes the image


def wait_for(replies: queue.SimpleQueue[Reply], kind: type[Reply]) -> Any:
    while not isinstance(reply := replies.get(timeout=600), kind):
        pass
    return reply


def milliseconds(values: list[float]) -> dict[str, float]:
    return {f"p{share}": round(1000 * float(np.percentile(values, share)), 1) for share in (50, 95)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="starter")
    parser.add_argument("--side", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clicks", type=int, default=40)
    args = parser.parse_args()
    replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        client = EngineClient(replies.put, Path(folder), WorkerOptions(threads=args.threads))
        client.start()
        wait_for(replies, Ready)
        started = time.perf_counter() - began
        client.submit(LoadModel(args.model, device="cpu"))
        wait_for(replies, Loaded)
        loaded = time.perf_counter() - began - started
        pixels = disc()
        began = time.perf_counter()
        image = SharedImage(pixels)
        shared = time.perf_counter() - began
        model_s, chosen_s, all_s = [], [], []
        for click in range(args.clicks + WARM_UP):
            prompt = Prompt.from_lists([(700 + 5 * click, 500)])
            began = time.perf_counter()
            client.submit(Preview(image.ref, prompt, args.side), (image,))
            wait_for(replies, ChosenMask)
            chosen = time.perf_counter() - began
            answer: Previewed = wait_for(replies, Previewed)
            if click >= WARM_UP:
                chosen_s.append(chosen)
                all_s.append(time.perf_counter() - began)
                model_s.append(answer.seconds)
        began = time.perf_counter()
        client.close()
        closed = time.perf_counter() - began
        image.release()
    overhead = [chosen - own for chosen, own in zip(chosen_s, model_s)]
    figures = {"start": started, "load": loaded, "share_1080p": shared, "close": closed}
    print(json.dumps({name: round(1000 * value, 1) for name, value in figures.items()}))
    parts = {
        "model": model_s,
        "click_to_preview": chosen_s,
        "click_to_all_masks": all_s,
        "overhead": overhead,
    }
    print(json.dumps({name: milliseconds(values) for name, values in parts.items()}))


if __name__ == "__main__":
    main()
