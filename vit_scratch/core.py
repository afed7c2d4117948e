import json, os, platform, random, subprocess
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

class InputError(ValueError):
    "Something the caller gave cannot be used; the message names it and what would be right."

@contextmanager
def must_fail(kind: type = InputError):  # the exception that has to come
    "Run something that has to go wrong: print the error, and raise `AssertionError` if there was none."
    try:
        yield
    except kind as error:
        print(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
        return
    raise AssertionError(f"expected {kind.__name__}, but nothing went wrong")

def set_seed(seed: int,        # any integer ≥ 0
            ) -> torch.Generator:  # a CPU generator with the same seed, for draws of your own
    "Seed Python, NumPy and torch (CPU and GPU), and return a generator."
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)

def pick_device(name: str = "auto",  # "auto", "cpu", "cuda", "cuda:1", "mps"
               ) -> torch.device:
    "The device to work on: what was asked for, or the best there is. Raises `InputError` if it is not there."
    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in have.items() if there))
    if not have.get(name.split(":")[0], False):
        raise InputError(f"device {name!r} is not available here; there is {', '.join(k for k in have if have[k])}")
    return torch.device(name)

def count_params(model: nn.Module,
                ) -> int:  # trainable numbers
    "How many numbers training may change."
    return sum(p.numel() for p in model.parameters() if p.requires_grad)

def show_images(images: Tensor,       # (B, C, H, W): uint8, or float between 0 and 1
                titles=None,          # one string per image
                ncols: int = 8,       # images in a row
                size: float = 1.2,    # inches per image
                ax=None,              # array of axes to draw on instead of a new figure
               ) -> Figure:
    "Draw a batch of images in a grid."
    n, ncols = len(images), min(ncols, len(images))
    if ax is None:
        extra = 0.25 if titles is not None else 0.0
        nrows = -(-n // ncols)
        _, ax = plt.subplots(nrows, ncols, figsize=(ncols * size, nrows * (size + extra)), squeeze=False, layout="constrained")
    ax = np.asarray(ax)
    for a in ax.flat:
        a.axis("off")
    for i, (a, image) in enumerate(zip(ax.flat, images.detach().cpu())):
        picture = image.permute(1, 2, 0)                                # (H, W, C)
        a.imshow(picture.clamp(0, 1) if picture.is_floating_point() else picture, cmap="gray", vmin=0, vmax=None)
        if titles is not None:
            a.set_title(str(titles[i]), fontsize=9)
    return ax.flat[0].figure

def show_tensor(x: Tensor,             # (rows, columns)
                title: str = "",
                ax=None,
                fmt: str = ".0f",      # how each number is printed
                **kwargs):             # passed to `imshow`
    "Draw a small matrix as coloured cells with the numbers in them."
    ax = ax or plt.subplots(figsize=(0.55 * x.shape[1] + 0.6, 0.55 * x.shape[0] + 0.5))[1]
    ax.imshow(x.detach(), **{"cmap": "Blues", "alpha": 0.6, **kwargs})
    for (i, j), v in np.ndenumerate(x.detach().numpy()):
        ax.text(j, i, format(v, fmt), ha="center", va="center", fontsize=10)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
    return ax

def processor() -> str:
    "The processor's name and the number of cores this process may use."
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = next((l.split(":", 1)[1].strip() for l in cpuinfo.read_text().splitlines() if l.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"

def environment() -> dict:
    "What a result needs to be believed: versions, processor, GPU and, in a checkout, the commit."
    import torchvision
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True) \
        if (Path(__file__).parents[1] / ".git").exists() else None
    return {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__,
            "processor": processor(), "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "commit": git.stdout.strip() if git and git.returncode == 0 else None}

def write_json(path,         # file to write
               obj):         # anything `json` can write
    "Write a JSON file whole or not at all: to a temporary name first, then renamed."
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(obj, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)

def load_result(name: str,   # a file in `results/`, without ".json"
               ) -> dict:
    "A run's result from the project's `results/` folder, or from its repository where there is no checkout."
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (path := folder / "results" / f"{name}.json").exists():
            return json.loads(path.read_text(encoding="utf-8"))
    from importlib.metadata import metadata
    from urllib.request import urlopen
    raw = metadata("vit_scratch")["Home-page"].replace("github.com", "raw.githubusercontent.com")
    with urlopen(f"{raw}/HEAD/results/{name}.json", timeout=30) as answer:
        return json.load(answer)
