"""Our kernels with products of 32-bit numbers on a processor, beside torch's way, in about fifteen minutes:   python tools/cpu_floats.py RESULT.json

Attention between its projections and whole blocks on one core (milliseconds), and whole models on all (images a second), in turns; medians and quartiles. The file is written after each model.
"""
import subprocess
import sys
from contextlib import nullcontext
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F

from cpu_kernel import MODELS
from speed_facts import NO_KERNEL
from vit_scratch import kernel_choice
from vit_scratch.attention import Attention
from vit_scratch.bench import ceilings, spread, take_turns
from vit_scratch.core import environment, set_seed, write_json
from vit_scratch.encoder import Block
from vit_scratch.fast import Gradients, forward_in_parts, keep_memory
from vit_scratch.peers import inference
from vit_scratch.vit import ViT

HEADS = [(256, 3, 64, 17), (64, 3, 64, 65), (64, 6, 32, 64), (8, 3, 64, 197), (2, 3, 64, 1025)]      # images, h, d, tokens
BLOCKS = [(192, 3, 2.0), (384, 6, 4.0)]      # D, h, hidden layer as a multiple of D
TOKENS = [16, 64, 256, 1024, 4096]           # in images of 16
ROUNDS = 9


def steps_of(work, inputs, grad) -> dict:
    "A pass forward, and one in both directions."
    def forward():
        with torch.no_grad():
            work()
    return {"forward": forward, "both": lambda: torch.autograd.grad(work(), inputs, grad)}


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
    seconds = take_turns({(way, kind): step for way, work in ways.items() for kind, step in steps_of(work, qkv, grad).items()}, ROUNDS)
    return {"images": B, "tokens": T, "heads": h, "head_dim": d, **{way: {f"{kind}_ms": 1e3 * median(seconds[way, kind]) for kind in ("forward", "both")} for way in ways}}


def block(D: int, h: int, ratio: float, tokens: int) -> dict:
    "One block: torch's operations, and both halves in one piece."
    set_seed(0)
    net, x, grad = Block(D, h, ratio), torch.randn(tokens // 16, 16, D, requires_grad=True), torch.randn(tokens // 16, 16, D)
    times = max(1, 1024 // tokens)
    def timed(step, way):
        def many():
            with way, patch.multiple(kernel_choice, HALF_TOKENS=0, HALF_WEIGHTS=10**9):
                for _ in range(times):
                    step()
        return many
    ways = {"torch's way": NO_KERNEL, "ours": nullcontext()}
    seconds = take_turns({(name, kind): timed(step, way) for name, way in ways.items() for kind, step in steps_of(lambda: net(x), [x, *net.parameters()], grad).items()}, ROUNDS)
    return {"D": D, "heads": h, "hidden": int(D * ratio), "tokens": tokens, **{name: {f"{kind}_ms": 1e3 * median(seconds[name, kind]) / times for kind in ("forward", "both")} for name in ways}}


def model(cfg, batch: int) -> dict:
    "Training (forward and backward, not compiled) and inference: torch's way with all cores in each operation, torch's way side by side, and ours side by side."
    set_seed(0)
    net, cores = ViT(cfg), torch.get_num_threads()
    images, targets = torch.randn(batch, 3, cfg.img_size, cfg.img_size), torch.randint(0, cfg.num_classes, (batch,))
    def timed(work, way):
        def one():
            with way:
                work()
        return one
    together, side_by_side = (patch("vit_scratch.fast.shares_cores", lambda model, amp, answer=answer: answer) for answer in (False, True))
    found = {}
    for kind in ("train", "infer"):
        net.train(kind == "train")
        training = {way: Gradients(net, "off", workers=workers) for way, workers in (("torch's way", 1), ("torch's way, side by side", cores), ("ours", cores))}
        works = {way: (lambda g=g: g(images, targets)) if kind == "train" else inference(net, images, "off", forward_in_parts) for way, g in training.items()}
        if kind == "infer":
            works = {way: timed(work, together if way == "torch's way" else side_by_side) for way, work in works.items()}
        seconds = take_turns({way: timed(work, nullcontext() if way == "ours" else NO_KERNEL) for way, work in works.items()}, ROUNDS)
        found[kind] = {way: spread(s, batch) for way, s in seconds.items()}
    return found


def main(path: str):
    keep_memory()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    report = {"what": "our kernels in 32 bits on a processor, and torch's way; attention and blocks on one core, models on all, in turns", "environment": environment(),
              "compiler": subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout.splitlines()[0], "ceilings_one_core": ceilings(), "heads": [], "blocks": [], "models": []}
    for size in HEADS:
        report["heads"].append(heads(*size))
        print(report["heads"][-1], flush=True)
    for D, h, ratio in BLOCKS:
        for tokens in TOKENS:
            report["blocks"].append(block(D, h, ratio, tokens))
            print(report["blocks"][-1], flush=True)
    torch.set_num_threads(cores)
    report["ceilings"] = ceilings()
    for name, (cfg, batch) in MODELS.items():
        report["models"].append({"model": name, "batch": batch // 2, **model(cfg, batch // 2)})
        print(report["models"][-1], flush=True)
        write_json(path, report)


if __name__ == "__main__":
    main(sys.argv[1])
