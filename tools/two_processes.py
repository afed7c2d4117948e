"""Train the same run in one, two and four processes on this machine and compare the weights:

    python tools/two_processes.py [--shard] [RESULT.json]

--shard: the weights cut over the processes instead of copied.
"""
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from vit_scratch.core import environment, write_json

OPTIONS = ("train --data shapes --images 2048 --epochs 3 --batch_size 128 "
           "--warmup_epochs 0.5 --embed_dim 64 --depth 3 --num_heads 4 "
           "--rotation 10 --randaugment 1 --mixup 0.8 --cutmix 1 --erasing 0.25 --ema 0.99 --device cpu").split()
COPIED = [("adamw", "off", 1), ("adamw", "off", 2), ("adamw", "off", 4), ("muon", "off", 1), ("muon", "off", 2)]
CUT = [*COPIED, ("adamw", "bf16", 1), ("adamw", "bf16", 2), ("adamw", "fp16", 1), ("adamw", "fp16", 2)]


def run(processes: int, out: Path, *more: str) -> float:
    launch = (["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "29611", "-m",
               "vit_scratch"] if processes > 1 else ["-m", "vit_scratch"])
    start = time.time()
    done = subprocess.run([sys.executable, *launch, *OPTIONS, *more, "--out", str(out)],
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{processes} processes failed: {done.stderr[-2000:]}")
    return round(time.time() - start, 1)


def weights(folder: Path) -> dict:
    state = torch.load(folder / "last.pt", weights_only=True)
    return {**state["model"], **{f"ema {k}": v for k, v in state["ema"]["model"].items()}}


if __name__ == "__main__":
    cut = "--shard" in sys.argv
    files = [word for word in sys.argv[1:] if word != "--shard"]
    top, rows = Path(tempfile.mkdtemp()), []
    for optimizer, amp, processes in CUT if cut else COPIED:
        seconds = run(processes, top / f"{optimizer}-{amp}-{processes}", "--optimizer", optimizer, "--amp", amp,
                      "--shard", str(cut).lower())
        one, these = weights(top / f"{optimizer}-{amp}-1"), weights(top / f"{optimizer}-{amp}-{processes}")
        rows.append({"optimizer": optimizer, "amp": amp, "processes": processes,
                     "largest_difference": max((one[k] - these[k]).abs().max().item() for k in one),
                     "seconds": seconds})
        print(rows[-1], flush=True)
    write_json(files[0] if files else f"results/{'sharding' if cut else 'processes'}.json",
               {"what": "largest difference of any weight, trained or averaged, to the run in one process; "
                        f"{'FSDP' if cut else 'DDP'}, gloo on CPU, one thread a process",
                "rows": rows, "options": OPTIONS, "environment": environment()})
