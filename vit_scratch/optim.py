import math

import torch
from torch import Tensor, nn

from vit_scratch.core import InputError

def decays(name: str, p: Tensor) -> bool:
    "Weight decay is for matrices: not for biases, norms, positions or tokens."
    return p.ndim >= 2 and name.split(".")[-1] not in ("pos_embed", "cls_token", "reg_token")

def decay_groups(model: nn.Module,
                 weight_decay: float,
                ) -> list[dict]:          # two groups for an optimizer
    "Split the trainable parameters into those that decay and those that do not."
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [{"params": [p for n, p in named if decays(n, p)], "weight_decay": weight_decay},
            {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0}]

def warmup_cosine(step: int,              # 0 for the first step
                  total: int,             # steps in the whole run
                  warmup: int,            # steps of linear warmup
                  start: float = 0.01,    # factor at step 0
                  final: float = 0.0,     # factor the cosine ends at
                 ) -> float:              # multiplies the learning rate
    "Linear warmup, then half a cosine: a pure function of the step [SGDR, eq. 5]."
    if step < warmup:
        return start + (1 - start) * step / warmup
    done = (step - warmup) / max(1, total - warmup)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, done))) / 2

def is_hidden_matrix(name: str, p: Tensor) -> bool:
    "What Muon is for: the matrices inside the blocks, not the embedding and not the head."
    return p.ndim == 2 and ".blocks." in f".{name}"

def make_optimizers(model: nn.Module,
                    kind: str = "adamw",           # "adamw", "adam" or "muon"
                    lr: float = 1e-3,              # for AdamW and Adam
                    muon_lr: float = 0.02,         # for Muon's matrices
                    weight_decay: float = 0.05,
                   ) -> list[torch.optim.Optimizer]:
    "One optimizer, or Muon for the blocks' matrices [Muon] with AdamW for the rest."
    if kind == "adam":
        return remember_lr([torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)])
    if kind == "adamw":
        return remember_lr([torch.optim.AdamW(decay_groups(model, weight_decay), lr)])
    if kind != "muon":
        raise InputError(f"unknown optimizer {kind!r}; there are adamw, adam, muon")
    matrices = {n: p for n, p in model.named_parameters() if p.requires_grad and is_hidden_matrix(n, p)}
    if not matrices:
        raise InputError("optimizer muon needs matrices in the model's `blocks`; this model has none, use adamw")
    chosen = {id(p) for p in matrices.values()}
    rest = [{**g, "params": [p for p in g["params"] if id(p) not in chosen]} for g in decay_groups(model, weight_decay)]
    return remember_lr([torch.optim.Muon(list(matrices.values()), lr=muon_lr, weight_decay=weight_decay, momentum=0.95),
                        torch.optim.AdamW(rest, lr)])

def remember_lr(optimizers: list) -> list:
    "Keep each group's full learning rate beside the scheduled one."
    for group in (g for o in optimizers for g in o.param_groups):
        group["base_lr"] = group["lr"]
    return optimizers

def set_lr(optimizers: list, factor: float):
    "Set every group's learning rate to `factor` times its full one."
    for group in (g for o in optimizers for g in o.param_groups):
        group["lr"] = group["base_lr"] * factor
