"""The small model with few images at a time, in fp32 on a processor, in about five minutes:

    python tools/few_images.py results/few-images.json

Inference: ours as it is, by torch's operations alone, as it was when our kernels took whatever they could, and timm's.
Training with dropout, where the halves of a block are not for our kernels: attention alone by our kernel, and by torch.
Images a second, medians and quartiles of rounds in turns, all in one process.
"""
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from unittest.mock import patch

import torch

from speed_facts import NO_KERNEL
from vit_scratch import kernel_choice
from vit_scratch.bench import LENGTHS, SIZES, ceilings, spread, take_turns
from vit_scratch.core import environment, set_seed, write_json
from vit_scratch.fast import Gradients, forward_in_parts, keep_memory
from vit_scratch.peers import implementations, inference
from vit_scratch.vit import ViT

BATCHES, ROUNDS = (1, 2, 4, 8, 16, 32, 64), 21
WITH_DROPOUT = {"small": 64, "16-tokens": 512, "256-tokens": 32}      # size: images


def eagerly() -> ExitStack:
    "Our kernels wherever they can, as before they were measured with few images."
    stack = ExitStack()
    stack.enter_context(patch.dict(kernel_choice.OWN_TOKENS, {torch.float32: 0}))
    stack.enter_context(patch.dict(kernel_choice.HALF_TOKENS, {torch.float32: 64}))
    return stack


def answers(batch: int) -> dict:
    "Images a second in inference."
    set_seed(0)
    cfg, calls = SIZES["small"], max(1, 16 // batch)
    x = torch.randn(batch, 3, cfg.img_size, cfg.img_size)
    own, theirs = (implementations(cfg, only=name)[name] for name in ("vit_scratch", "timm"))
    ours = inference(own, x, "off", forward_in_parts)
    ways = {"ours": (ours, nullcontext), "torch's operations": (ours, lambda: NO_KERNEL), "eagerly": (ours, eagerly),
            "timm": (inference(theirs, x, "off"), nullcontext)}
    def step(call, way):
        def timed():
            with way():
                for _ in range(calls):
                    call()
        return timed
    seconds = take_turns({name: step(*way) for name, way in ways.items()}, ROUNDS)
    return {"batch": batch, **{name: spread(found, batch * calls) for name, found in seconds.items()}}


def trains(size: str, batch: int) -> dict:
    "The same in training with dropout."
    set_seed(0)
    cfg = {**SIZES, **LENGTHS}[size]
    model = ViT(replace(cfg, proj_drop_rate=0.1)).train()
    x, y = torch.randn(batch, 3, cfg.img_size, cfg.img_size), torch.randint(cfg.num_classes, (batch,))
    steps = {}
    for name, way in (("torch's operations", lambda: NO_KERNEL), ("attention by our kernel", nullcontext)):
        def step(gradients=Gradients(model), way=way):
            model.zero_grad()
            with way():
                gradients(x, y)
        steps[name] = step
    return {"size": size, "batch": batch,
            **{name: spread(found, batch) for name, found in take_turns(steps, ROUNDS).items()}}


def main(path: str):
    keep_memory()
    report = {"what": "few images at a time, and training with dropout, fp32; images per second, medians and quartiles "
                      "of rounds in turns", "threads": torch.get_num_threads(), "environment": environment(),
              "ceilings": ceilings(), "inference": [], "training with dropout": []}
    for batch in BATCHES:
        report["inference"].append(answers(batch))
        print(report["inference"][-1], flush=True)
    for size, batch in WITH_DROPOUT.items():
        report["training with dropout"].append(trains(size, batch))
        print(report["training with dropout"][-1], flush=True)
    write_json(path, report)


if __name__ == "__main__":
    main(*sys.argv[1:])
