"Train the same run, with AdamW and with Muon, in one, two and four processes on this machine and compare the weights: python tools/two_processes.py [RESULT.json]"
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from vit_scratch.core import environment, write_json

OPTIONS = ("train --data shapes --images 2048 --epochs 3 --batch_size 128 --warmup_epochs 0.5 --embed_dim 64 --depth 3 --num_heads 4 --amp off "
           "--rotation 10 --randaugment 1 --mixup 0.8 --cutmix 1 --erasing 0.25 --ema 0.99 --device cpu").split()


def run(processes: int, out: Path, *more: str) -> float:
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "29611", "-m", "vit_scratch"] if processes > 1 else ["-m", "vit_scratch"]
    start = time.time()
    done = subprocess.run([sys.executable, *launch, *OPTIONS, *more, "--out", str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{processes} processes failed: {done.stderr[-2000:]}")
    return round(time.time() - start, 1)


def weights(folder: Path) -> dict:
    state = torch.load(folder / "last.pt", weights_only=True)
    return {**state["model"], **{f"ema {k}": v for k, v in state["ema"]["model"].items()}}


if __name__ == "__main__":
    top, rows = Path(tempfile.mkdtemp()), []
    for optimizer, processes in (("adamw", 1), ("adamw", 2), ("adamw", 4), ("muon", 1), ("muon", 2)):
        seconds = run(processes, top / f"{optimizer}-{processes}", "--optimizer", optimizer)
        one, these = weights(top / f"{optimizer}-1"), weights(top / f"{optimizer}-{processes}")
        rows.append({"optimizer": optimizer, "processes": processes, "largest_difference": max((one[k] - these[k]).abs().max().item() for k in one), "seconds": seconds})
        print(rows[-1], flush=True)
    write_json(sys.argv[1] if len(sys.argv) > 1 else "results/processes.json",
               {"what": "largest difference of any weight, trained or averaged, to the run in one process; gloo on CPU, one thread a process", "rows": rows,
                "options": OPTIONS, "environment": environment()})
