import time

import torch

def bf16_is_faster() -> bool:
    "Whether this processor multiplies bf16 matrices faster than fp32 ones, found by trying (about 20 ms)."
    def seconds(x):
        x @ x
        start = time.perf_counter()
        for _ in range(5):
            x @ x
        return time.perf_counter() - start
    x = torch.randn(512, 512)
    return seconds(x.bfloat16()) < seconds(x)

def choose_amp(amp: str, device: torch.device) -> str:
    "Turn \"auto\" into bf16, fp16 or off."
    if amp != "auto":
        return amp
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if device.type == "cpu" and bf16_is_faster() else "off"

def autocast(amp: str,   # "bf16", "fp16" or "off"
             device: torch.device):
    "The context in which matrix products run in 16 bits."
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[amp]
    return torch.autocast(device.type, dtype=dtype, enabled=amp != "off")
