"""Kill a short run 25 times with SIGKILL at random moments, resume it each time, and compare its weights with an
undisturbed run's:

    python tools/kill_test.py [RESULT.json] [KILLS]
"""
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from vit_scratch.core import environment, write_json

OPTIONS = ("--data shapes --images 2000 --epochs 6 --batch_size 50 --warmup_epochs 0.5 --embed_dim 48 --depth 2 "
           "--num_heads 3 --proj_drop_rate 0.1 "
           "--rotation 10 --randaugment 1 --mixup 0.8 --cutmix 1 --ema 0.99 --save_every 1 --device cpu").split()


def train(*arguments) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "vit_scratch", "train", *arguments], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def place(folder: Path) -> tuple[int, int]:
    state = torch.load(folder / "last.pt", weights_only=True)
    return state["epoch"], state["batch"]


def kill_once(process: subprocess.Popen, folder: Path, draw: random.Random, longest: float):
    "Kill at a random moment after the first checkpoint that this process has written."
    before = (folder / "last.pt").stat().st_mtime_ns if (folder / "last.pt").exists() else 0
    while (process.poll() is None and not ((folder / "last.pt").exists()
                                           and (folder / "last.pt").stat().st_mtime_ns > before)):
        time.sleep(0.005)
    time.sleep(draw.uniform(0, longest))
    if process.poll() is not None:
        raise SystemExit(f"the run ended before it could be killed: {process.stderr.read()}")
    process.kill()
    process.wait()


def equal_parts(a: Path, b: Path) -> dict:
    x, y = (torch.load(folder / "last.pt", weights_only=True) for folder in (a, b))
    same = lambda one, two: all(torch.equal(one[k], two[k]) for k in one)
    return {"model": same(x["model"], y["model"]), "ema": same(x["ema"]["model"], y["ema"]["model"]),
            "train_loss": [r["train_loss"] for r in x["history"]] == [r["train_loss"] for r in y["history"]]}


if __name__ == "__main__":
    kills, draw, start = int(sys.argv[2]) if len(sys.argv) > 2 else 25, random.Random(0), time.time()
    top = Path(tempfile.mkdtemp())
    whole, killed = top / "whole", top / "killed"
    begun = time.time()
    if train(*OPTIONS, "--out", str(whole)).wait():
        raise SystemExit("the undisturbed run failed")
    steps, places = 6 * 40, []
    for i in range(kills):
        process = train(*(["--resume", "--out", str(killed)] if i else [*OPTIONS, "--out", str(killed)]))
        kill_once(process, killed, draw, longest=0.6)
        places.append(place(killed))
        print(f"kill {i + 1}: epoch {places[-1][0] + 1}, batch {places[-1][1]} of 40", flush=True)
    if train("--resume", "--out", str(killed)).wait():
        raise SystemExit("the last resume failed")
    equal = equal_parts(whole, killed)
    line = (f"{kills} times killed, in {len(set(places))} different places: "
            + ("bit for bit the same weights, averages and losses" if all(equal.values())
               else f"NOT the same: {equal}"))
    print(line)
    write_json(sys.argv[1] if len(sys.argv) > 1 else "results/kill-resume.json",
               {"line": line, "kills": kills, "places": places, "steps": steps, "equal": equal, "options": OPTIONS,
                "seconds": round(time.time() - start, 1), "environment": environment()})
    sys.exit(not all(equal.values()))
