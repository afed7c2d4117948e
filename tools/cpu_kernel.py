"""Attention between its projections on a processor, our kernel beside torch's paths, and whole models with it
and without, in about ten minutes:

    python tools/cpu_kernel.py RESULT.json

Milliseconds on one core and images a second on all, in turns (medians, quartiles), and how far each is from 64-bit
arithmetic. The file is written after each model.
"""
import subprocess
import sys
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F

from vit_scratch import kernel_choice
from vit_scratch.amp import autocast
from vit_scratch.attention import Attention, attention_weights
from vit_scratch.bench import LENGTHS, SIZES, ceilings, spread, take_turns
from vit_scratch.core import environment, set_seed, write_json
from vit_scratch.fast import Gradients, forward_in_parts, keep_memory
from vit_scratch.peers import inference
from vit_scratch.rotary import RotaryAttention
from vit_scratch.vit import ViT, ViTConfig

# images, h, d, grid, tokens before it, norms and turns
ALONE = [(64, 3, 64, (8, 8), 1, False), (64, 6, 32, (8, 8), 0, True), (32, 8, 32, (8, 8), 1, False),
         (256, 3, 64, (4, 4), 1, False),
         (8, 3, 64, (14, 14), 1, False), (4, 6, 64, (14, 14), 1, False), (1, 3, 64, (32, 32), 1, False),
         (1, 3, 64, (48, 48), 1, False), (1, 3, 64, (64, 64), 1, False)]
RECIPE = ViTConfig(mlp_ratio=2.0, qk_norm=True, rope=True, pos="none", pool="mean")      # as our recipes have it
MODELS = {"small": (SIZES["small"], 256), "small, as our recipes have it": (RECIPE, 256),
          "system-a": (SIZES["system-a"], 128), "vit-ti": (SIZES["vit-ti"], 32), "vit-s": (SIZES["vit-s"], 8),
          "256-tokens": (LENGTHS["256-tokens"], 128), "1024-tokens": (LENGTHS["1024-tokens"], 16)}
ROUNDS = 15


def by_products(q, k, v):
    return (attention_weights(q, k) @ v).transpose(1, 2).flatten(2)


def plain(attn, qkv):
    "What a block does without our kernel, from qkv to the output."
    with autocast("bf16", qkv.device):
        return by_products(*attn.heads(qkv))


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
    attn = RotaryAttention(h * d, h, qk_norm=True, grid_size=grid) if whole else Attention(h * d, h)
    attn.qkv = torch.nn.Identity()
    qkv, grad = torch.randn(B, T, 3*h*d).bfloat16().requires_grad_(), torch.randn(B, T, h*d).bfloat16()
    # for short sequences the fused kernel's backward pass is far slower (chapter 21)
    ways = (plain, ours, fused) if T > 1000 else (plain, ours)
    steps = ({(way, "forward"): torch.no_grad()(lambda way=way: way(attn, qkv)) for way in ways}
             | {(way, "both"): lambda way=way: torch.autograd.grad(way(attn, qkv), qkv, grad) for way in ways})
    seconds = take_turns(steps, ROUNDS)
    row = {"images": B, "tokens": T, "heads": h, "head_dim": d, "norms and turns": whole,
           **{way.__name__: {f"{kind}_ms": 1e3 * median(seconds[way, kind]) for kind in ("forward", "both")}
              for way in ways}}
    if B * T * T < 4e6:      # 64 bits take long
        def answers(way, attn, qkv, grad):
            out = way(attn, qkv)
            return out.detach(), *torch.autograd.grad(out, qkv, grad)
        found = {way: answers(way, attn, qkv, grad) for way in ways}
        exact = answers(lambda attn, x: by_products(*attn.heads(x)), attn.double(),
                        qkv.detach().double().requires_grad_(), grad.double())
        for way in ways:
            row[way.__name__]["errors"] = [error(a, e) for a, e in zip(found[way], exact)]
    return row


def only_attention(works: bool):
    "Torch's way or, where it works, our kernel for attention alone, without the halves of a block."
    return patch.multiple(kernel_choice, kernel_works=lambda *asked: works, half_fits=lambda *half: False)


# name → what makes its `with`
def model(cfg: ViTConfig, batch: int, ways: dict, amp: str = "bf16", rounds: int = ROUNDS) -> dict:
    "Training (forward and backward, not compiled) and inference, in several ways."
    set_seed(0)
    net = ViT(cfg)
    images, targets = torch.randn(batch, 3, cfg.img_size, cfg.img_size), torch.randint(0, cfg.num_classes, (batch,))
    def step(kind, way):
        run = ((lambda gradients=Gradients(net, amp): gradients(images, targets)) if kind == "train"
               else inference(net, images, amp, forward_in_parts))
        def timed():
            with way():
                run()
        return timed
    found = {}
    for kind in ("train", "infer"):
        net.train(kind == "train")
        found[kind] = {way: spread(seconds, batch)
                       for way, seconds in take_turns({name: step(kind, way) for name, way in ways.items()},
                                                      rounds).items()}
    return found


def main(path: str):
    keep_memory()
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    report = {"what": "attention between its projections, by our kernel for a processor and torch's paths; one core, "
                      "in turns", "tflops_one_core": ceilings()["tflops_bf16"],
              "compiler": subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout.splitlines()[0],
              "environment": environment(), "alone": [], "models": []}
    for size in ALONE:
        report["alone"].append(alone(*size))
        print(report["alone"][-1], flush=True)
    torch.set_num_threads(cores)
    for name, (cfg, batch) in MODELS.items():
        report["models"].append({"model": name, "batch": batch,
                                 **model(cfg, batch, {"plain": lambda: only_attention(False),
                                                      "ours": lambda: only_attention(True)})})
        print(report["models"][-1], flush=True)
        write_json(path, report)


if __name__ == "__main__":
    main(sys.argv[1])
