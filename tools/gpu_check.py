"""What can only be checked with a GPU, in about two minutes:

    python tools/gpu_check.py [RESULT.json] [--only "bf16;resume"] [--device cpu for a dry run] [--memory: also fill it]
"""
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from vit_scratch.core import InputError, environment, set_seed, wait_for, write_json
from vit_scratch.data import load_data
from vit_scratch.errors import write_report
from vit_scratch.explain import METHODS, explain
from vit_scratch.explorer import explore
from vit_scratch.inside import looks
from vit_scratch.maps import attention_maps
from vit_scratch.mixing import mix
from vit_scratch.policy import AugmentConfig, augment, draw
from vit_scratch.runs import load_run
from vit_scratch.scores import score_explanations
from vit_scratch.settings import TrainConfig
from vit_scratch.splits import normalize
from vit_scratch.trainer import Steps
from vit_scratch.training import fit
from vit_scratch.vit import ViT, ViTConfig

EVERYTHING = dict(rotation=15, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, randaugment=2, erasing=0.25,
                  mixup=0.8, cutmix=1.0)
MODEL = ViTConfig(embed_dim=128, depth=4, num_heads=4, pool="mean", qk_norm=True)


def same_augmentation(data, device: str) -> dict:
    """The same draws on the processor and on the device:
    the share of values more than a byte apart, and the device's rate."""
    cfg, images, labels = AugmentConfig(**EVERYTHING), data.train.images[:512], data.train.labels[:512]
    drawn = draw(cfg, 512, 32, 32, set_seed(0))
    results = [mix(augment(images.to(d), drawn, cfg, data.mean), labels.to(d), drawn["share"], drawn["pasted"],
                   10)[0].cpu() for d in ("cpu", device)]
    x, start = images.to(device), time.perf_counter()
    for _ in range(20):
        augment(x, drawn, cfg, data.mean)
    wait_for(torch.device(device))
    return {"share_of_values_off": ((results[0] - results[1]).abs() > 1/255).float().mean().item(),
            "images_per_second": 20 * 512 / (time.perf_counter() - start)}


def run(data, device: str, out=None, resume=False, **settings) -> tuple[dict, torch.Tensor]:
    set_seed(0)
    model = ViT(MODEL)
    done = fit(model, data, TrainConfig(**{"epochs": 4, "optimizer": "muon", "device": device, "ema": 0.99,
                                           **settings}), out=out, resume=resume, quiet=True)
    return ({"test": done.test["accuracy"], "train_loss": done.history[-1]["train_loss"],
             "images_per_second": done.history[-1]["images_per_second"]},
            torch.cat([p.detach().flatten().cpu() for p in model.parameters()]))


def interrupted(data, device: str, folder: Path, **settings) -> dict:
    "Stop in the middle of an epoch by an error, resume, and compare with a run that was not stopped."
    _, whole = run(data, device, folder / "whole", amp="bf16", save_every=3, **settings)
    step = Steps.step

    def fails(self, *batch):
        step(self, *batch)
        if (self.epoch, self.batch) == (1, 7):
            raise KeyboardInterrupt
    Steps.step = fails
    try:
        run(data, device, folder / "stopped", amp="bf16", save_every=3, **settings)
    except KeyboardInterrupt:
        pass
    finally:
        Steps.step = step
    _, resumed = run(data, device, folder / "stopped", resume=True, amp="bf16", save_every=3, **settings)
    _, twice = run(data, device, folder / "twice", amp="bf16", save_every=3, **settings)
    return {"resumed_differs_by": (whole - resumed).abs().max().item(),
            "repeated_differs_by": (whole - twice).abs().max().item()}


def looking_inside(data, device: str, folder: Path) -> dict:
    """Maps and explanations of the model that comes with the package, on the processor and on the device: by how much
    they differ, as a share of their largest value."""
    here, there = (load_run("demo", d) for d in ("cpu", device))
    data, pictures = replace(data, mean=here.mean, std=here.std), data.test.images[:8]
    x = normalize(pictures, data.mean, data.std)
    off = lambda a, b: ((a - b).abs().max() / a.abs().max()).item()
    report = {"attention": off(attention_maps(here.model, x), attention_maps(there.model, x))}
    report |= {method: off(*(explain(run.model, x, data.test.labels[:8], method) for run in (here, there)))
               for method in METHODS}
    looks(there.model, x, pictures)
    score_explanations(there.model, data, data.test[:100], n=8, n_off_centre=4)
    write_report(folder / "report.html", there.model, data.test[:100].to(device), data)
    return (report | {"same_page": abs(len(explore(here.model, x[:1], pictures[0]).page)
                                       - len(explore(there.model, x[:1], pictures[0]).page)) < 100})


def fast_steps(data, device: str) -> dict:
    """Whether a step makes the processor wait, and what compiling changes:
    losses, images per second, seconds to compile."""
    def ten_steps(compile: str, strict: bool = False) -> dict:
        set_seed(0)
        steps = Steps(ViT(MODEL), data, TrainConfig(batch_size=512, optimizer="muon", device=device, compile=compile))
        steps.model.train()
        images, labels = (t.to(device) for t in (data.train.images[:512], data.train.labels[:512]))
        for _ in range(3):
            steps.step(images, labels)
        if strict and device == "cuda":
            torch.cuda.set_sync_debug_mode("error")          # raises at the first wait
        start = time.perf_counter()
        for _ in range(10):
            steps.step(images, labels)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        wait_for(torch.device(device))
        return {"loss": float(steps.loss_sum) / steps.batch, "images_per_second": 5120 / (time.perf_counter() - start),
                "compile_seconds": steps.gradients.seconds}
    report = {compile: ten_steps(compile) for compile in ("off", "on", "graphs")}
    try:
        ten_steps("off", strict=True)
        return report | {"waits": None}
    except RuntimeError as error:
        torch.cuda.set_sync_debug_mode("default")
        return report | {"waits": str(error).splitlines()[0]}


def memory(data, device: str) -> str:
    "What a run says whose batch does not fit. Takes all of the device's memory: nothing else should run there."
    try:
        fit(ViT(replace(MODEL, embed_dim=1024, depth=24, num_heads=16)), data,
            TrainConfig(batch_size=8192, device=device, compile="off"), quiet=True)
    except InputError as error:
        return str(error)
    return "a batch of 8192 fits"


def not_recordable(data, device: str) -> str:
    "What a run says whose step asks the GPU for a number; a plain one must still work afterwards."
    class Asks(ViT):
        def forward(self, x):
            return super().forward(x) if x.sum().item() > -1e9 else x
    try:
        fit(Asks(MODEL), data, TrainConfig(batch_size=512, device=device, compile="graphs"), quiet=True)
        return "recorded"
    except InputError as error:
        return f"{error} | {run(data, device, amp='bf16')[0]}"


if __name__ == "__main__":
    device = sys.argv[sys.argv.index("--device") + 1] if "--device" in sys.argv else "cuda"
    out = next((a for a in sys.argv[1:] if a.endswith(".json")), "results/gpu.json")
    data, folder, report = load_data("shapes", n=9000), Path(tempfile.mkdtemp()), {}
    if device == "cpu":      # a dry run
        data = replace(data, train=data.train[:1280], val=data.val[:100], test=data.test[:100])
    checks = {"augmentation": lambda: same_augmentation(data, device),
              "resume": lambda: interrupted(data, device, folder),
              **{amp: (lambda amp=amp: run(data, device, amp=amp)[0])
                 for amp in ("off", "bf16", *["fp16"] * (device != "cpu"))},
              "everything on": lambda: run(data, device, amp="bf16", **EVERYTHING)[0],
              "resume, recorded": lambda: interrupted(data, device, folder/"recorded", compile="graphs",
                                                      batch_size=256),
              "looking inside": lambda: looking_inside(data, device, folder),
              "fast steps": lambda: fast_steps(data, device)}
    if "--memory" in sys.argv:
        checks["out of memory"] = lambda: memory(data, device)
    checks["not recordable"] = lambda: not_recordable(data, device)      # last: it may leave torch in pieces
    only = sys.argv[sys.argv.index("--only") + 1].split(";") if "--only" in sys.argv else checks
    for name, check in ((name, check) for name, check in checks.items() if name in only):
        start = time.perf_counter()
        try:
            report[name] = check()
        except Exception as error:      # the other checks are still worth their time
            report[name] = f"FAILED: {type(error).__name__}: {error}"
        print(f"{name:15} {time.perf_counter() - start:5.1f} s  {report[name]}", flush=True)
        write_json(out, {**report, "environment": environment()})
