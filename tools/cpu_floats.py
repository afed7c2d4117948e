"""Our kernels with products of 32-bit numbers on a processor, beside torch's way, in about fifteen minutes:

    python tools/cpu_floats.py RESULT.json

Attention between its projections and whole blocks on one core (milliseconds), and whole models on all (images a
second), in turns; medians and quartiles. The file is written after each model.
"""
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F

from cpu_halves import BLOCKS, alone
from cpu_kernel import MODELS, model
from speed_facts import NO_KERNEL
from vit_scratch import kernel_choice
from vit_scratch.attention import Attention
from vit_scratch.bench import ceilings, take_turns
from vit_scratch.core import environment, set_seed, write_json
from vit_scratch.fast import keep_memory

# images, h, d, tokens
HEADS = [(256, 3, 64, 17), (64, 3, 64, 65), (64, 6, 32, 64), (8, 3, 64, 197), (2, 3, 64, 1025)]
TOKENS = [16, 64, 256, 1024, 4096]           # in images of 16
ROUNDS = 9


def heads(B: int, h: int, d: int, T: int) -> dict:
    "Attention between its projections: torch's fused kernel, and ours."
    set_seed(0)
    attn = Attention(h * d, h)
    attn.qkv = torch.nn.Identity()
    qkv, grad = torch.randn(B, T, 3*h*d, requires_grad=True), torch.randn(B, T, h*d)
    def fused():
        q, k, v = attn.heads(qkv)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    ways = {"torch's way": fused, "ours": lambda: kernel_choice.own_kernel(attn, qkv)}
    steps = ({(way, "forward"): torch.no_grad()(work) for way, work in ways.items()}
             | {(way, "both"): lambda work=work: torch.autograd.grad(work(), qkv, grad) for way, work in ways.items()})
    seconds = take_turns(steps, ROUNDS)
    return {"images": B, "tokens": T, "heads": h, "head_dim": d,
            **{way: {f"{kind}_ms": 1e3 * median(seconds[way, kind]) for kind in ("forward", "both")} for way in ways}}


def by_torch(side_by_side: bool) -> ExitStack:
    "Without our kernels, parts of a batch side by side or one after the other."
    stack = ExitStack()
    stack.enter_context(NO_KERNEL)
    stack.enter_context(patch("vit_scratch.fast.shares_cores", lambda model, amp: side_by_side))
    return stack


def main(path: str):
    keep_memory()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    report = {"what": "our kernels in 32 bits on a processor, and torch's way; attention and blocks on one core, "
                      "models on all, in turns", "environment": environment(),
              "compiler": subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout.splitlines()[0],
              "ceilings_one_core": ceilings(), "heads": [], "blocks": [], "models": []}
    for size in HEADS:
        report["heads"].append(heads(*size))
        print(report["heads"][-1], flush=True)
    for shape in BLOCKS:
        for tokens in TOKENS:
            report["blocks"].append(alone(*shape, tokens, {"torch's way": lambda: NO_KERNEL, "ours": nullcontext},
                                          "off"))
            print(report["blocks"][-1], flush=True)
    torch.set_num_threads(cores)
    report["ceilings"] = ceilings()
    ways = {"torch's way": lambda: by_torch(False), "torch's way, side by side": lambda: by_torch(True),
            "ours": nullcontext}
    for name, (cfg, batch) in MODELS.items():
        report["models"].append({"model": name, "batch": batch // 2, **model(cfg, batch // 2, ways, "off", ROUNDS)})
        print(report["models"][-1], flush=True)
        write_json(path, report)


if __name__ == "__main__":
    main(sys.argv[1])
