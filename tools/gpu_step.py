"""Where a training step's time goes on a GPU, in about two minutes:

    python tools/gpu_step.py RESULT.json [--only "recorded;one by one"] [--device cpu for a dry run]

One model, noise for images. Each way of making a step: milliseconds for a step when many follow each other, and how
long the processor needs to start one.
"""
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from unittest.mock import patch

import torch

import vit_scratch.kernel_choice as kernel_choice
from vit_scratch.bench import ceilings, operations
from vit_scratch.core import environment, set_seed, wait_for, write_json
from vit_scratch.settings import TrainConfig
from vit_scratch.splits import ImageData, Split
from vit_scratch.trainer import Trainer
from vit_scratch.vit import ViT, ViTConfig

MODEL = ViTConfig(embed_dim=192, depth=9, num_heads=6, mlp_ratio=2.0, pool="mean", qk_norm=True, rope=True,
                  pos_start="sincos", pos_scale=0.5)
TRAIN = dict(epochs=100, optimizer="muon", muon_by_head=True, beta2=0.95, lr=2e-3, muon_lr=0.03, randaugment=2,
             mixup=0.8, cutmix=1.0, mix_prob=0.8, label_smoothing=0.1, ema=0.999)
WAYS = {"recorded": dict(compile="graphs"), "recorded, batch 1024": dict(compile="graphs", batch_size=1024),
        "recorded, batch 1024, sent from ordinary memory": dict(compile="graphs", batch_size=1024, pinned=False),
        "recorded, torch's attention": dict(compile="graphs", own=0), "one by one": dict(compile="off"),
        "compiled": dict(compile="on")}
TOGETHER = (10, 5, 2, 1)      # batches prepared at once


def noise(n: int) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (n,), generator=generator)
    return ImageData("noise", list("abcdefghij"), Split(images, labels), Split(images[:100], labels[:100]), None,
                     [0.49, 0.48, 0.45], [0.25, 0.24, 0.26])


def milliseconds(work, n: int, device: str) -> tuple[float, float]:
    "For one of `n` calls: until the device is done, and until the processor has started it."
    work()
    wait_for(torch.device(device))
    start = time.perf_counter()
    for _ in range(n):
        work()
    started = time.perf_counter() - start
    wait_for(torch.device(device))
    return 1000 * (time.perf_counter() - start) / n, 1000 * started / n


def an_epoch(trainer: Trainer, device: str) -> tuple[float, float]:
    "The same for the steps of an epoch, images prepared and all."
    trainer.batch = 0
    wait_for(torch.device(device))
    start = time.perf_counter()
    for batch in trainer.todo():
        trainer.step(*batch)
    started = time.perf_counter() - start
    wait_for(torch.device(device))
    return tuple(1000 * t / trainer.steps_per_epoch for t in (time.perf_counter() - start, started))


def preparing(trainer: Trainer) -> float:
    "Milliseconds for a batch of an epoch that is only prepared."
    trainer.batch, start = 0, time.perf_counter()
    for _ in trainer.todo():
        trainer.batch += 1
    wait_for(trainer.device)
    return 1000 * (time.perf_counter() - start) / trainer.steps_per_epoch


def kernels(replay) -> list[dict]:
    "What a replay consists of: each kernel's name, how often it runs, and its milliseconds altogether."
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        replay()
        torch.cuda.synchronize()
    rows = sorted(profile.key_averages(), key=lambda row: -row.self_device_time_total)
    return [{"kernel": row.key[:120], "times": row.count, "ms": row.self_device_time_total / 1000} for row in rows]


def roofline(device: str) -> dict:
    """Each stage of a block's forward pass alone, 1024 images: operations, fewest bytes, seconds;
    and the card's ceilings."""
    from gpu_kernel import STREAM, milliseconds as recorded_ms, parts
    from speed_facts import stages
    from vit_scratch.kernel_choice import own_kernel
    n, h, T, D = 1024 if device == "cuda" else 4, MODEL.num_heads, 64, MODEL.embed_dim
    ms = recorded_ms if device == "cuda" else lambda work: milliseconds(work, 2, device)[0]
    with torch.cuda.stream(STREAM):      # all of it in one: what is recorded must not wait for another
        found = stages(n, MODEL, torch.device(device))
        if device == "cuda":
            attn, qkv = parts(h, D // h, (8, 8)).requires_grad_(False), torch.randn(n, T, 3*D, device=device).bfloat16()
            one_piece = lambda: own_kernel(attn, qkv)
            found["attention in one kernel, norms and turns included"] = one_piece, 4*n*T*T*D, 8*n*T*D
        rows = [{"stage": name, "operations": ops, "bytes": size, "seconds": ms(work) / 1000}
                for name, (work, ops, size) in found.items()]
    for row in rows:
        print(f"{row['stage']:50} {1e6 * row['seconds']:8.1f} µs {row['operations'] / row['seconds'] / 1e12:7.1f} "
              f"TFLOP/s {row['bytes'] / row['seconds'] / 1e9:7.0f} GB/s", flush=True)
    return {"images": n, "operations_of_a_step": 3 * operations(MODEL), "ceilings": ceilings(torch.device(device)),
            "stages": rows}


def measure(data: ImageData, device: str, compile: str, own: int = kernel_choice.OWN_UP_TO["cuda"],
            batch_size: int = 512, pinned: bool = True) -> dict:
    kernel_choice.OWN_UP_TO["cuda"] = own
    set_seed(0)
    # `sent` then sends from ordinary memory
    with nullcontext() if pinned else patch.object(torch.Tensor, "pin_memory", lambda t: t):
        return measure_step(data, device, compile, batch_size)


def measure_step(data: ImageData, device: str, compile: str, batch_size: int) -> dict:
    trainer = Trainer(ViT(MODEL), data, TrainConfig(**TRAIN, batch_size=batch_size, device=device, compile=compile))
    trainer.model.train()
    an_epoch(trainer, device)                # compiles and records
    whole, processor = an_epoch(trainer, device)
    batch = trainer.train_split.images[:batch_size], trainer.train_split.labels[:batch_size]
    trainer.batch = 0
    row = {"batch_size": batch_size, "ms": whole, "processor_ms": processor,
           "images_per_second": 1000 * batch_size / whole, "compile_seconds": trainer.gradients.seconds,
           "prepare_alone_ms": milliseconds(lambda: trainer.prepare(*batch), 5, device)[0],
           "prepare_ms": preparing(trainer),
           "average_ms": milliseconds(lambda: trainer.ema.update(trainer.model), 10, device)[0]}
    if batch_size == 1024:
        row["ms_by_batches_prepared_together"] = {}
        for trainer.at_once in TOGETHER:
            an_epoch(trainer, device)
            row["ms_by_batches_prepared_together"][trainer.at_once] = an_epoch(trainer, device)[0]
        print(row["ms_by_batches_prepared_together"], flush=True)
    if replay := getattr(trainer.update, "replay", None):
        found = kernels(replay)
        row |= {"replay_ms": milliseconds(replay, 20, device)[0], "kernels_of_a_step": sum(k["times"] for k in found),
                "kernel_ms": sum(k["ms"] for k in found), "kernels": found[:60]}
    return row


if __name__ == "__main__":
    device = sys.argv[sys.argv.index("--device") + 1] if "--device" in sys.argv else "cuda"
    out = (next((a for a in sys.argv[1:] if a.endswith(".json")), None)
           or sys.exit("gpu_step: give a file for the result, such as results/gpu-step-2.json"))
    data = noise(47_500 if device == "cuda" else 1024)
    report = {"model": asdict(MODEL), "train": TRAIN, "environment": environment(), "ways": {}}
    only = sys.argv[sys.argv.index("--only") + 1].split(";") if "--only" in sys.argv else WAYS
    if "--only" not in sys.argv or "roofline" in only:
        report["roofline"] = roofline(device)
        write_json(out, report)
    for name, how in WAYS.items():
        if name not in only:
            continue
        if device == "cuda" or how["compile"] == "off":
            row = report["ways"][name] = measure(data, device, **how)
            print(f"{name:28} {row['ms']:6.2f} ms a step, processor {row['processor_ms']:6.2f}, "
                  f"{row['images_per_second']:8,.0f} images/s, compiled in {row['compile_seconds']:.0f} s", flush=True)
            write_json(out, report)
