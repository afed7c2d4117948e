"""What makes a training step fast, measured: each change alone, sizes of parts, and where each stage stands under the
roofline. Writes results/speed-facts.json.

python tools/speed_facts.py [--rounds 9] [--out results/speed-facts.json]
python tools/speed_facts.py --again paths      # one section of a file that is there"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from vit_scratch import attention, bench, kernel_choice
from vit_scratch.amp import choose_amp
from vit_scratch.bench import LENGTHS, SIZES, Player, batch_for, ceilings, operations, spread, take_turns
from vit_scratch.core import environment, write_json
from vit_scratch.fast import Gradients, forward_in_parts, keep_memory, saved_bytes
from vit_scratch.optim import make_optimizers
from vit_scratch.peers import implementations, inference
from vit_scratch.vit import ViT, ViTConfig

CPU, CFG, BATCH = torch.device("cpu"), SIZES["small"], 256
CHANGES = {"as everyone writes it": "", "plain attention": "plain", "in parts": "plain parts",
           "memory kept": "plain parts kept", "memory kept, whole batch": "plain kept",
           "one call for AdamW": "plain parts kept adamw",
           "last block's class token only": "plain parts kept adamw token",
           "side by side": "plain parts kept adamw token side", "compiled": "plain parts kept adamw token compiled",
           "compiled, side by side, Python between": "plain parts kept adamw token compiled side python",
           "compiled, side by side": "plain parts kept adamw token compiled side",
           "side by side, our kernel": "plain parts kept adamw token side kernel",
           "compiled, side by side, our kernel": "plain parts kept adamw token compiled side kernel",
           "side by side, a block in two pieces": "plain parts kept adamw token side kernel halves",
           "compiled, side by side, a block in two pieces": "plain parts kept adamw token compiled side kernel halves"}
NO_KERNEL = patch.object(kernel_choice, "kernel_works", lambda *asked: False)


def prepare(name, cfg, kind, batch, amp, device, compile):
    "Our training step with some of the changes; stands in for `bench.prepare` in a player's process."
    done = CHANGES[name].split()
    if "plain" not in done:
        attention.plain_is_faster = lambda q: False
    if "kernel" not in done:
        NO_KERNEL.start()
    if "halves" not in done:
        kernel_choice.half_fits = lambda *half: False
    if "kept" in done:
        keep_memory()
    if "token" not in done:
        ViT.reads_class_token_only = lambda self: False
    if "python" in done:
        compiler = torch.compile
        torch.compile = lambda function, options=None: compiler(function)      # without the program in C++
    torch.manual_seed(0)
    model = ViT(cfg).train()
    x, y = torch.randn(batch, cfg.in_chans, cfg.img_size, cfg.img_size), torch.randint(cfg.num_classes, (batch,))
    gradients = Gradients(model, amp, part=0 if "parts" in done else batch,
                          compile="on" if "compiled" in done else "off", workers=0 if "side" in done else 1)
    optimizer = (make_optimizers(model, "adamw", 1e-3, weight_decay=0.01, decay_all=True)[0] if "adamw" in done
                 else torch.optim.AdamW(model.parameters(), 1e-3))
    def step():
        optimizer.zero_grad(set_to_none=True)
        gradients(x, y)
        optimizer.step()
    return step


class Variant(Player):
    "A process that runs this file's `prepare`."
    def __init__(self, name, amp):
        self.process = subprocess.Popen([sys.executable, __file__, "--play", name, "--amp", amp], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.first = None


def measure_changes(rounds, amp, names=tuple(CHANGES)[:-4]):
    "Images per second of one training step with the changes made one after the other, in turns."
    players = {name: Variant(name, amp) for name in names}
    first = {name: player.begin() for name, player in players.items()}
    seconds = take_turns({name: player.step for name, player in players.items() if "failed" not in first[name]}, rounds)
    return [{"change": name, **first[name], **spread(seconds.get(name, [float("nan")]), BATCH),
             "seconds": seconds.get(name), **players[name].end()} for name in names]


WITH_KERNEL = tuple(f"{compiled}side by side{kernel}" for compiled in ("", "compiled, ")
                    for kernel in ("", ", our kernel", ", a block in two pieces"))

TOLD = ("vit_scratch, compiled", "vit-pytorch", "vit-pytorch, compiled", "timm", "timm, compiled",
        "timm, plain attention", "timm, plain attention, compiled")


def play_peer(name, amp):
    "One of `TOLD` in its own process; timm is told to take plain products before its model is made."
    peer, *how = name.split(", ")
    if "plain attention" in how:
        from timm.layers import set_fused_attn
        set_fused_attn(False)
    bench.play(peer, CFG, "train", BATCH, amp, "cpu", "compiled" in how)


def measure_told(rounds, amp):
    "Training steps in turns: ours, the fastest other, and timm with its usual attention and with plain products."
    players = {}
    for name in TOLD:
        players[name] = Variant(name, amp)
        players[name].begin()                    # one after the other: compiling takes all cores
    seconds = take_turns({name: player.step for name, player in players.items()}, rounds)
    return [{"implementation": name, **players[name].begin(), **spread(seconds[name], BATCH), "seconds": seconds[name],
             **players[name].end()} for name in TOLD]


def measure_parts(rounds, amp):
    "The same batch in parts of different sizes, for every model."
    rows = []
    for label, cfg in {**SIZES, **LENGTHS}.items():
        batch = batch_for(cfg, CPU)
        model = ViT(cfg).train()
        x, y = torch.randn(batch, 3, cfg.img_size, cfg.img_size), torch.randint(cfg.num_classes, (batch,))
        each = (saved_bytes(model, x[:4], amp) - saved_bytes(model, x[:2], amp)) / 2
        sizes = [batch // 2**i for i in range(6) if batch >= 2**i]
        steps = {part: (lambda step=Gradients(model, amp, part=part, workers=1): step(x, y)) for part in sizes}
        seconds = take_turns(steps, rounds)
        rows += [{"size": label, "batch": batch, "part": part, "megabytes": part * each / 1e6,
                  **spread(seconds[part], batch)} for part in sizes]
    return rows


def measure_paths(rounds, amp):
    """Whole models, three blocks deep, with attention's two paths and without our kernel, in turns: training in parts
    side by side, and inference."""
    rows = []
    for side in (8, 12, 16, 24, 32, 40, 48):
        cfg = ViTConfig(img_size=4 * side, mlp_ratio=2.0, depth=3)
        batch = min(128, batch_for(cfg, CPU))
        model = ViT(cfg)
        x, y = torch.randn(batch, 3, cfg.img_size, cfg.img_size), torch.randint(cfg.num_classes, (batch,))
        for kind in ("train", "infer"):
            model.train(kind == "train")
            steps = {}
            for path in ("plain", "fused"):
                step = ((lambda gradients=Gradients(model, amp): gradients(x, y)) if kind == "train"
                        else inference(model, x, amp, forward_in_parts))
                def chosen(step=step, plain=path == "plain"):
                    with NO_KERNEL, patch.object(attention, "plain_is_faster", lambda k: plain):
                        step()
                steps[path] = chosen
            for path, seconds in take_turns(steps, rounds).items():
                rows.append({"tokens": side**2 + 1, "batch": batch, "kind": kind, "path": path,
                             **spread(seconds, batch)})
    return rows


def measure_native(rounds, amp, size="system-a"):
    "Inference beside nn.TransformerEncoder, with torch's native path for its evaluation mode and without."
    cfg = SIZES[size]
    x = torch.randn(batch_for(cfg, CPU), cfg.in_chans, cfg.img_size, cfg.img_size)
    ours, theirs = (implementations(cfg, only=name)[name] for name in ("vit_scratch", "nn.TransformerEncoder"))
    def native(on):
        step = inference(theirs, x, amp)
        def timed():
            torch.backends.mha.set_fastpath_enabled(on)
            return step()
        return timed
    steps = {"vit_scratch": inference(ours, x, amp, forward_in_parts), "nn.TransformerEncoder": native(True),
             "nn.TransformerEncoder, native path off": native(False)}
    return [{"size": size, "implementation": name, **spread(seconds, len(x))}
            for name, seconds in take_turns(steps, rounds).items()]


def stages(n, cfg, device=CPU):
    """name → (function, operations, fewest bytes) of one block's forward pass for n images in bf16, the residual
    stream in fp32."""
    T, D, h = cfg.grid_size[0] * cfg.grid_size[1] + cfg.num_prefix, cfg.embed_dim, cfg.num_heads
    hidden = int(D * cfg.mlp_ratio)
    M, d, half = n * T, D // h, lambda *shape: torch.randn(*shape, device=device).bfloat16()
    x, wide, stream, norm = half(M, D), half(M, hidden), torch.randn(M, D, device=device), torch.ones(D, device=device)
    q, k, v, p = half(n*h, T, d), half(n*h, T, d), half(n*h, T, d), half(n*h, T, T).softmax(-1)
    def linear(a, rows, columns):
        w, b = half(rows, columns), half(rows)
        return lambda: F.linear(a, w, b), 2*M*rows*columns, 2*(M*rows + M*columns + rows*columns)
    return {"LayerNorm, twice": (lambda: F.layer_norm(F.layer_norm(stream, (D,), norm, norm), (D,), norm, norm), 16*M*D,
                                 16*M*D),
            "to 16 bits, twice": (lambda: (stream.bfloat16(), stream.bfloat16()), 0, 12*M*D),
            "queries, keys, values": linear(x, 3*D, D), "scores": (lambda: q @ k.mT, 2*n*T*T*D, 2*n*h*(2*T*d + T*T)),
            "softmax": (lambda: p.softmax(-1), 5*n*h*T*T, 4*n*h*T*T),
            "weights · values": (lambda: p @ v, 2*n*T*T*D, 2*n*h*(2*T*d + T*T)), "projection": linear(x, D, D),
            "residual, twice": (lambda: stream + x + x, 2*M*D, 20*M*D),
            "first of MLP": linear(x, hidden, D), "GELU": (lambda: F.gelu(wide), 20*M*hidden, 4*M*hidden),
            "second of MLP": linear(wide, D, hidden)}


def operations_done(amp, cfg=CFG, n=4):
    """Operations of the matrix products of one image's training step, as torch counts them while they run (our kernels
    step aside): of a last block that reads the class token alone only what is done."""
    with FlopCounterMode(display=False) as counter:
        Gradients(ViT(cfg).train(), amp, part=n)(torch.randn(n, 3, cfg.img_size, cfg.img_size),
                                                 torch.zeros(n, dtype=torch.long))
    return counter.get_total_flops() / n


def measure_stages(rounds, n=64):
    "Each stage by itself, its numbers in the caches as far as they fit."
    found = stages(n, CFG)
    seconds = take_turns({name: stage[0] for name, stage in found.items()}, 10 * rounds, 5)
    return [{"stage": name, "operations": ops, "bytes": size, "seconds": sorted(seconds[name])[len(seconds[name]) // 2]}
            for name, (_, ops, size) in found.items()]


IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
COMPILE = """import torch
from vit_scratch.bench import SIZES
from vit_scratch.fast import Gradients
from vit_scratch.vit import ViT
step = Gradients(ViT(SIZES["small"]).train(), "bf16", compile="on", workers={})
step(torch.randn(256, 3, 32, 32), torch.randint(10, (256,)))
print(step.seconds)"""


def measure_starting(rounds):
    """Seconds before a program can begin: to import, and to compile the small model's step with nothing in torch's
    cache on the disk."""
    def seconds(code):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder},
                                  capture_output=True, text=True, check=True)
        return float(done.stdout.splitlines()[-1])
    rows = [{"what": f"import {name}", "seconds": median(seconds(IMPORT.format(name)) for _ in range(rounds))}
            for name in ("torch", "torch, torch._dynamo", "vit_scratch")]
    return (rows + [{"what": f"compile, {how}", "seconds": seconds(COMPILE.format(workers))}
                    for how, workers in (("one part after the other", 1), ("side by side", 0))])


SECTIONS = {"changes": measure_changes, "kernel": lambda rounds, amp: measure_changes(2 * rounds, amp, WITH_KERNEL),
            "told": measure_told, "starting": lambda rounds, amp: measure_starting(max(3, rounds // 2)),
            "stages": lambda rounds, amp: measure_stages(rounds),
            "native": lambda rounds, amp: measure_native(2 * rounds, amp),
            "paths": lambda rounds, amp: measure_paths(max(3, rounds // 2), amp),
            "parts": lambda rounds, amp: measure_parts(max(3, rounds // 2), amp)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", default="results/speed-facts.json")
    parser.add_argument("--again", nargs="+", choices=SECTIONS, default=[],
                        help="only these sections; the rest stays as it is in the file")
    parser.add_argument("--play", help=argparse.SUPPRESS)
    parser.add_argument("--amp", default=choose_amp("auto", CPU))
    args = parser.parse_args()
    if args.play in TOLD:
        play_peer(args.play, args.amp)
        sys.exit()
    if args.play:
        bench.prepare = prepare
        bench.play(args.play, CFG, "train", BATCH, args.amp, "cpu", False)
        sys.exit()
    if args.again:
        result = json.loads(Path(args.out).read_text(encoding="utf-8"))
    else:
        result = {"what": "one training step of the small model, batch 256: changes made one after the other, stages "
                          "of a block; attention's paths and parts of different sizes, for several models",
                  "amp": args.amp, "batch": BATCH,
                  "operations": 3 * operations(CFG), "operations_done": operations_done(args.amp),
                  "ceilings": ceilings(), "environment": environment()}
    for name in args.again or SECTIONS:
        if name not in ("changes", "kernel", "told"):      # these run in processes of their own
            keep_memory()
        result[name] = SECTIONS[name](args.rounds, args.amp)
        result.setdefault("commits", {})[name] = environment()["commit"]
        for row in result[name]:
            print(name, {key: value for key, value in row.items() if not isinstance(value, list)}, flush=True)
        write_json(args.out, result)
