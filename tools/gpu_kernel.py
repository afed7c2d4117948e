"""Our attention kernel beside torch's on a GPU, in about a minute:

    python tools/gpu_kernel.py RESULT.json [--sizes 2: the first two only; 0: torch's three beside each other only]

Milliseconds (median of many), and how far each is from 64-bit arithmetic.
"""
import sys
from statistics import median
from unittest.mock import patch

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import vit_scratch.kernel as kernel
from vit_scratch.core import environment, set_seed, write_json
from vit_scratch.kernel_choice import own_kernel
from vit_scratch.rotary import RotaryAttention

# images, heads, d, grid, tokens in front
SIZES = [(512, 6, 32, (8, 8), 0), (512, 6, 32, (8, 8), 1), (256, 6, 32, (8, 16), 0), (512, 3, 64, (8, 8), 0),
         (2048, 6, 32, (4, 4), 0)]
# heads, d, tokens, for torch's kernels alone
LENGTHS = [(6, 32, 64), (6, 32, 65), (3, 64, 64), (3, 64, 65), (8, 32, 65), (6, 32, 97), (6, 32, 197), (3, 64, 197)]
# for all of it: what is recorded must not wait for another
STREAM = torch.cuda.Stream() if torch.cuda.is_available() else None


def milliseconds(work, n: int = 20) -> float:
    "Of one call among many, started by a recording, so that no time goes into starting."
    for _ in range(3):
        work()
    graph, times = torch.cuda.CUDAGraph(), []
    with torch.cuda.graph(graph, stream=STREAM):
        for _ in range(n):
            work()
    for _ in range(7):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record(); graph.replay(); end.record(); end.synchronize()
        times.append(start.elapsed_time(end) / n)
    return median(times)


def parts(h: int, d: int, grid: tuple[int, int]):
    "Attention without its projections: qkv goes in."
    attn = RotaryAttention(h * d, h, qk_norm=True, grid_size=grid).cuda()
    attn.qkv, attn.proj = torch.nn.Identity(), torch.nn.Identity()
    for norm in (attn.q_norm, attn.k_norm):
        torch.nn.init.normal_(norm.weight, 1, 0.3); torch.nn.init.normal_(norm.bias, 0, 0.3)
    return attn


def theirs(attn, qkv):
    with torch.autocast("cuda", torch.bfloat16):
        q, k, v = attn.heads(qkv)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def error(answer, exact) -> float:
    return ((answer.double() - exact).norm() / exact.norm()).item()


def compare(B: int, h: int, d: int, grid: tuple[int, int], prefix: int) -> dict:
    set_seed(0)
    attn = parts(h, d, grid)
    qkv, grad = (torch.randn(B, prefix + grid[0] * grid[1], n * h * d, device="cuda", dtype=torch.bfloat16)
                 for n in (3, 1))
    with torch.no_grad():
        attn.double(); attn.cos, attn.sin = attn.angles.cos(), attn.angles.sin()
    x = qkv[:32].double().requires_grad_()
    y = torch.nn.functional.scaled_dot_product_attention(*attn.heads(x)).transpose(1, 2).flatten(2)
    right = [y.detach(), *torch.autograd.grad(y, x, grad[:32].double())]
    attn.float()
    torch._dynamo.reset()
    ways = {"ours": lambda x: own_kernel(attn, x), "torch's, compiled": torch.compile(lambda x: theirs(attn, x))}
    row = {"images": B, "heads": h, "head_dim": d, "tokens": qkv.shape[1]}
    for name, way in ways.items():
        x = qkv.clone().requires_grad_()
        y = way(x)
        found = [y[:32], torch.autograd.grad(y, x, grad)[0][:32]]
        learnt = [x, *attn.q_norm.parameters(), *attn.k_norm.parameters()]
        row[name] = {"forward_ms": milliseconds(lambda: way(qkv)),
                     "both_ms": milliseconds(lambda: torch.autograd.grad(way(x), learnt, grad)),
                     "errors": [error(a, b) for a, b in zip(found, right)]}
    return row


def warps() -> dict:
    "Milliseconds of our kernels at the first size, by how many groups of 32 threads a program has."
    set_seed(0)
    attn, report = parts(6, 32, (8, 8)), {}
    qkv, grad = (torch.randn(512, 64, 192 * n, device="cuda", dtype=torch.bfloat16) for n in (3, 1))
    x = qkv.clone().requires_grad_()
    for n in (1, 2, 4, 8):
        with patch.object(kernel, "warps", lambda kind, backward: n):
            report[n] = {"forward_ms": milliseconds(lambda: own_kernel(attn, qkv)),
                         "both_ms": milliseconds(lambda: torch.autograd.grad(own_kernel(attn, x), x, grad))}
        print(n, "warps", {name: round(ms, 4) for name, ms in report[n].items()}, flush=True)
    return report


def torchs(h: int, d: int, T: int, B: int = 1024, device: str = "cuda") -> dict:
    """Milliseconds of torch's three fused kernels, forwards and both ways, on queries, keys and values as a layer cuts
    them from one product; None for one that refuses."""
    row = {"images": B, "heads": h, "head_dim": d, "tokens": T}
    qkv, grad = (torch.randn(B, T, n * h * d, device=device, dtype=torch.bfloat16, requires_grad=n == 3)
                 for n in (3, 1))
    def attend(backend):
        q, k, v = (t.unflatten(-1, (h, d)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with torch.no_grad():
                forward = milliseconds(lambda: attend(backend))
            row[backend.name] = {"forward_ms": forward,
                                 "both_ms": milliseconds(lambda: torch.autograd.grad(attend(backend), qkv, grad))}
        except RuntimeError:
            row[backend.name] = None
    return row


if __name__ == "__main__":
    out = (next((a for a in sys.argv[1:] if a.endswith(".json")), None)
           or sys.exit("gpu_kernel: give a file for the result"))
    sizes = SIZES[:int(sys.argv[sys.argv.index("--sizes") + 1])] if "--sizes" in sys.argv else SIZES
    with torch.cuda.stream(STREAM):
        theirs_alone = [torchs(*size) for size in LENGTHS]
    for row in theirs_alone:
        print({name: value and {k: round(v, 4) for k, v in value.items()} if name.isupper() else value
               for name, value in row.items()}, flush=True)
    # its memory-efficient kernel, the fastest of them at 64 tokens
    torch.backends.cuda.enable_flash_sdp(False); torch.backends.cuda.enable_cudnn_sdp(False)
    with torch.cuda.stream(STREAM):
        report = {"what": "milliseconds in bf16 on a GPU: attention from qkv to its output and back, norms and rotary "
                          "positions included", "environment": environment(),
                  "torchs": theirs_alone, "sizes": []}
        write_json(out, report)
        if sizes:
            report["warps"] = warps()
        for size in sizes:
            report["sizes"].append(row := compare(*size))
            print(size, {name: {k: [f"{e:.1e}" for e in v] if k == "errors" else round(v, 4)
                                for k, v in row[name].items()} for name in ("ours", "torch's, compiled")}, flush=True)
            write_json(out, report)
