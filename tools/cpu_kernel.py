"""Attention between its projections on a processor, our kernel beside torch's paths, and whole models with it and without, in about ten minutes:   python tools/cpu_kernel.py RESULT.json

Milliseconds on one core and images a second on all, in turns (medians, quartiles), and how far each is from 64-bit arithmetic. The file is written after each model.
"""
import subprocess
import sys
import time
from statistics import quantiles
from unittest.mock import patch

import torch
import torch.nn.functional as F

from vit_scratch import kernel_choice
from vit_scratch.amp import autocast
from vit_scratch.attention import attention_weights
from vit_scratch.bench import LENGTHS, SIZES, ceilings
from vit_scratch.cpu_kernel import cpu_attention
from vit_scratch.core import environment, set_seed, write_json
from vit_scratch.fast import Gradients, forward_in_parts, keep_memory
from vit_scratch.rotary import RotaryAttention
from vit_scratch.vit import ViT, ViTConfig

ALONE = [(64, 3, 64, (8, 8), 1, False), (64, 6, 32, (8, 8), 0, True), (32, 8, 32, (8, 8), 1, False), (256, 3, 64, (4, 4), 1, False),      # images, h, d, grid, tokens before it, norms and turns
         (8, 3, 64, (14, 14), 1, False), (4, 6, 64, (14, 14), 1, False), (1, 3, 64, (32, 32), 1, False), (1, 3, 64, (48, 48), 1, False), (1, 3, 64, (64, 64), 1, False)]
RECIPE = ViTConfig(mlp_ratio=2.0, qk_norm=True, rope=True, pos="none", pool="mean")      # as our recipes have it
MODELS = {"small": (SIZES["small"], 256), "small, as our recipes have it": (RECIPE, 256), "system-a": (SIZES["system-a"], 128), "vit-ti": (SIZES["vit-ti"], 32), "vit-s": (SIZES["vit-s"], 8),
          "256-tokens": (LENGTHS["256-tokens"], 128), "1024-tokens": (LENGTHS["1024-tokens"], 16)}
ROUNDS = 15


def summary(seconds: list[float], images: int) -> dict:
    low, median, high = (images / s for s in reversed(quantiles(seconds, n=4)))
    return {"median": median, "low": low, "high": high, "rounds": len(seconds)}


def plain(attn, qkv):
    "What a block does without our kernel, from qkv to the output."
    with autocast("bf16", qkv.device):
        q, k, v = attn.heads(qkv)
        return (attention_weights(q, k) @ v).transpose(1, 2).flatten(2)


def fused(attn, qkv):
    with autocast("bf16", qkv.device):
        q, k, v = attn.heads(qkv)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def ours(attn, qkv):
    with autocast("bf16", qkv.device):
        return kernel_choice.own_kernel(attn, qkv)


def error(answer, exact) -> float:
    return ((answer.double() - exact).norm() / exact.norm()).item()


def alone(B: int, h: int, d: int, grid: tuple[int, int], prefix: int, whole: bool) -> dict:
    set_seed(0)
    T = prefix + grid[0] * grid[1]
    attn = RotaryAttention(h * d, h, qk_norm=whole, grid_size=grid)
    attn.qkv = torch.nn.Identity()
    if not whole:
        attn.__class__ = attn.__class__.__base__      # an `Attention`
    qkv, grad = torch.randn(B, T, 3*h*d).bfloat16().requires_grad_(), torch.randn(B, T, h*d).bfloat16()
    row = {"images": B, "tokens": T, "heads": h, "head_dim": d, "norms and turns": whole}
    exact = None
    if B * T * T < 4e6:
        twin = qkv.detach().double().requires_grad_()
        q, k, v = attn.double().heads(twin)
        out = (attention_weights(q, k) @ v).transpose(1, 2).flatten(2)
        exact = out.detach(), torch.autograd.grad(out, twin, grad.double())[0]
        attn.float()
    ways = (plain, ours, fused) if T > 1000 else (plain, ours)      # for short sequences the fused kernel's backward pass is far slower (chapter 21)
    times = {(way, both): [] for way in ways for both in (False, True)}
    for i in range(ROUNDS + 2):      # two to warm up
        for way in ways[::1 if i % 2 else -1]:      # who comes first changes from round to round
            start = time.perf_counter()
            with torch.no_grad():
                way(attn, qkv)
            middle = time.perf_counter()
            out = way(attn, qkv)
            torch.autograd.grad(out, qkv, grad)
            if i > 1:
                times[way, False].append(middle - start), times[way, True].append(time.perf_counter() - middle)
    for way in ways:
        out = way(attn, qkv)
        found = {f"{name}_ms": 1e3 * quantiles(times[way, both], n=4)[1] for name, both in (("forward", False), ("both", True))}
        if exact:
            found["errors"] = [error(a, e) for a, e in zip((out.detach(), *torch.autograd.grad(out, qkv, grad)), exact)]
        row[way.__name__] = found
    return row


def model(cfg: ViTConfig, batch: int) -> dict:
    "Training (forward and backward, two workers side by side, not compiled) and inference, with our kernel and without."
    set_seed(0)
    net = ViT(cfg)
    images, targets = torch.randn(batch, 3, cfg.img_size, cfg.img_size), torch.randint(0, cfg.num_classes, (batch,))
    steps = {"plain": Gradients(net, "bf16"), "ours": Gradients(net, "bf16")}
    times = {(kind, way): [] for kind in ("train", "infer") for way in steps}
    for i in range(ROUNDS + 1):
        for way, step in list(steps.items())[::1 if i % 2 else -1]:
            with patch.object(kernel_choice, "kernel_works", lambda device: way == "ours"):
                start = time.perf_counter()
                step(images, targets)
                net.zero_grad(set_to_none=True)
                middle = time.perf_counter()
                net.eval()
                with torch.inference_mode(), autocast("bf16", images.device):
                    forward_in_parts(net, images)
                net.train()
                if i:
                    times["train", way].append(middle - start), times["infer", way].append(time.perf_counter() - middle)
    return {kind: {way: summary(times[kind, way], batch) for way in steps} for kind in ("train", "infer")}


def main(path: str):
    keep_memory()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    report = {"what": "attention between its projections, by our kernel for a processor and torch's paths; one core, in turns", "tflops_one_core": ceilings()["tflops_bf16"],
              "compiler": subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout.splitlines()[0], "environment": environment(), "alone": [], "models": []}
    for size in ALONE:
        report["alone"].append(alone(*size))
        print(report["alone"][-1], flush=True)
    torch.set_num_threads(cores)
    for name, (cfg, batch) in MODELS.items():
        report["models"].append({"model": name, "batch": batch, **model(cfg, batch)})
        print(report["models"][-1], flush=True)
        write_json(path, report)


if __name__ == "__main__":
    main(sys.argv[1])
