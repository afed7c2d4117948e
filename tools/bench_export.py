"""How many images a second a model answers as it is, and as the files that it is exported to, in about ten minutes:

    python tools/bench_export.py results/export.json

The small model and timm's of the same shape, in fp32 and evaluation mode, each in a process of its own, in turns;
medians and quartiles.
"""
import json
import sys
from pathlib import Path

import torch

from vit_scratch.bench import SIZES, Player, say, spread, take_turns
from vit_scratch.core import environment, set_seed, write_json
from vit_scratch.export import FORMATS, FromPixels
from vit_scratch.fast import forward_in_parts, keep_memory
from vit_scratch.peers import implementations, inference

SIZE, BATCHES, ROUNDS = "small", (1, 8, 32, 256), 15
WAYS = ("vit_scratch", "timm", *FORMATS)
COLOURS = [0.5] * 3, [0.25] * 3


def answering(way: str, batch: int):
    "A call that has a batch of bytes answered in this way."
    set_seed(0)
    cfg = SIZES[SIZE]
    pixels = torch.randint(256, (batch, 3, cfg.img_size, cfg.img_size), dtype=torch.uint8)
    own = "timm" if way == "timm" else "vit_scratch"
    module = FromPixels(implementations(cfg, only=own)[own], *COLOURS).eval()
    if way in FORMATS:
        _, write, read = FORMATS[way]
        answer = read(write(module, pixels[:1].repeat(2, 1, 1, 1), {}))
        return torch.inference_mode()(lambda: answer(pixels))
    if way == "timm":
        return inference(module, pixels, "off")
    keep_memory()
    normalised = lambda model, images: forward_in_parts(model.model, (images.float() / 255 - model.mean) / model.std)
    return inference(module, pixels, "off", normalised)      # as `predict_logits` does


def play(way: str, batch: int):
    "A player's process, as in `vit_scratch.bench`: some calls for every line that comes in."
    call, calls = answering(way, batch), max(1, 64 // batch)
    call()
    say(ready=True)
    for _ in sys.stdin:
        (seconds,) = take_turns({"": lambda: [call() for _ in range(calls)] and None}, 1, 0)[""]
        say(seconds=seconds / calls)
    say(ended=True)


class Program(Player):
    "The other end of a process that runs `play` of this file."
    program = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
               "from bench_export import play; play(*{})")


def main(path: str):
    report = {"what": f"images per second of the {SIZE} model in inference, fp32, as it is and as exported files; "
                      "medians and quartiles of rounds in turns, a process each", "threads": torch.get_num_threads(),
              "environment": environment(), "rows": []}
    for batch in BATCHES:
        players = {way: Program(way, batch) for way in WAYS}
        for player in players.values():
            player.begin()
        seconds = take_turns({way: player.step for way, player in players.items()}, ROUNDS)
        for way, player in players.items():
            player.end()
            report["rows"].append({"way": way, "batch": batch, **spread(seconds[way], batch)})
            print(json.dumps(report["rows"][-1]), flush=True)
        write_json(path, report)


if __name__ == "__main__":
    main(*sys.argv[1:])
