"""Halves of a block in one piece on a processor, beside the same without them, in about ten minutes:

    python tools/cpu_halves.py RESULT.json

A block with few and many tokens on one core (milliseconds), and whole models on all (images a second), in turns;
medians and quartiles. The file is written after each model.
"""
import contextlib
import sys
from statistics import median
from unittest.mock import patch

import torch

from cpu_kernel import MODELS, ROUNDS, model, only_attention
from speed_facts import operations_done
from vit_scratch import encoder, kernel_choice
from vit_scratch.amp import autocast
from vit_scratch.bench import ceilings, take_turns
from vit_scratch.core import environment, set_seed, write_json
from vit_scratch.encoder import Block
from vit_scratch.fast import keep_memory

BLOCKS = [(192, 3, 2.0), (384, 6, 4.0)]      # D, h, hidden layer as a multiple of D
TOKENS = [16, 32, 64, 128, 256, 512, 1024, 4096]      # in images of 16


def only(half: str):
    "One of the two halves alone."
    other = {"attention": "mlp_half_runs", "mlp": "attention_half_runs"}[half]
    return patch.object(encoder, other, lambda block, x: False)


WAYS = {"attention's kernel": lambda: only_attention(True), "MLP's half": lambda: only("mlp"),
        "both halves": contextlib.nullcontext}


def alone(D: int, h: int, ratio: float, tokens: int, ways: dict = WAYS, amp: str = "bf16") -> dict:
    "One block, forward alone and with its backward pass."
    set_seed(0)
    block = Block(D, h, ratio)
    x, grad = torch.randn(tokens // 16, 16, D, requires_grad=True), torch.randn(tokens // 16, 16, D)
    weights = [x, *block.parameters()]
    def forward():
        with torch.no_grad(), autocast(amp, x.device):
            block(x)
    def both():
        with autocast(amp, x.device):
            out = block(x)
        torch.autograd.grad(out, weights, grad)
    def step(work, way):
        def timed():
            with ways[way](), patch.dict(kernel_choice.HALF_TOKENS, dict.fromkeys(kernel_choice.HALF_TOKENS, 0)):
                for _ in range(max(1, 1024 // tokens)):
                    work()
        return timed
    seconds = take_turns({(kind, way): step(work, way) for kind, work in (("forward", forward), ("both", both))
                          for way in ways}, ROUNDS)
    return {"D": D, "heads": h, "hidden": int(D * ratio), "tokens": tokens,
            **{way: {f"{kind}_ms": 1e3 * median(seconds[kind, way]) / max(1, 1024 // tokens)
                     for kind in ("forward", "both")} for way in ways}}


def main(path: str):
    keep_memory()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    report = {"what": "halves of a block in one piece, on a processor, beside attention's kernel alone; blocks on one "
                      "core, models on all, in turns", "ceilings_one_core": ceilings(), "environment": environment(),
                      "alone": [], "models": []}
    for block in BLOCKS:
        for tokens in TOKENS:
            report["alone"].append(alone(*block, tokens))
            print(report["alone"][-1], flush=True)
    torch.set_num_threads(cores)
    report["ceilings"] = ceilings()
    for name, (cfg, batch) in MODELS.items():
        report["models"].append({"model": name, "batch": batch, "operations": operations_done("bf16", cfg, n=2),
                                 **model(cfg, batch, WAYS)})
        print(report["models"][-1], flush=True)
        write_json(path, report)


if __name__ == "__main__":
    main(sys.argv[1])
