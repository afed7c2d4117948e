"""Images per second of our batch augmentation and of torchvision's v2 transforms in a DataLoader, same operations:

    python tools/bench_augment.py [RESULT.json]
"""
import sys
import time

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from vit_scratch.core import environment, write_json
from vit_scratch.data import load_data, normalize
from vit_scratch.mixing import mix
from vit_scratch.policy import AugmentConfig, augment, draw
from vit_scratch.splits import batches

IMAGES, BATCH, ROUNDS = 4096, 256, 5
BILINEAR = InterpolationMode.BILINEAR
STEPS = {   # name: (our settings, their transforms)
    "crop, flip": (dict(), lambda: [v2.RandomCrop(32, 4), v2.RandomHorizontalFlip()]),
    "+ rotation": (dict(rotation=15), lambda: [v2.RandomRotation(15, interpolation=BILINEAR)]),
    "+ colour jitter": (dict(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
                        lambda: [v2.ColorJitter(0.2, 0.2, 0.2, 0.1)]),
    "+ RandAugment (2 operations)": (dict(randaugment=2), lambda: [v2.RandAugment(2, 9, interpolation=BILINEAR)]),
    "+ erasing, MixUp and CutMix": (dict(erasing=0.25, mixup=0.8, cutmix=1.0), None)}


class Their(Dataset):
    "One image at a time through their transforms."
    def __init__(self, images, labels, transform): self.images, self.labels, self.transform = images, labels, transform
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.transform(self.images[i]), self.labels[i]


def rate(one_pass) -> float:
    one_pass()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        one_pass()
        best = min(best, time.perf_counter() - start)
    return (IMAGES - IMAGES % BATCH) / best


def ours(data, cfg) -> float:
    def one_pass():
        generator = torch.Generator().manual_seed(0)
        for images, labels in batches(data.train, BATCH, generator):
            drawn = draw(cfg, BATCH, 32, 32, generator)
            x = normalize(augment(images, drawn, cfg, data.mean), data.mean, data.std)
            if "share" in drawn:
                mix(x, labels, drawn["share"], drawn["pasted"], data.num_classes)
    return rate(one_pass)


def theirs(data, transforms, mixes: bool) -> tuple[float, str]:
    pixels = [i.permute(1, 2, 0).numpy() for i in data.train.images]
    sources = {"PIL": [Image.fromarray(p) for p in pixels], "tensors": [tv_tensors.Image(i) for i in data.train.images]}
    last = ([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(data.mean, data.std)]
            + [v2.RandomErasing(0.25, value=0)] * mixes)
    mixer = v2.RandomChoice([v2.MixUp(alpha=0.8, num_classes=10), v2.CutMix(num_classes=10)])
    collate = (lambda rows: mixer(*torch.utils.data.default_collate(rows))) if mixes else None
    rates = {}
    for kind, images in sources.items():
        for workers in (0, 2):
            loader = DataLoader(Their(images, data.train.labels, v2.Compose(transforms + last)), BATCH, shuffle=True,
                                drop_last=True,
                                num_workers=workers, persistent_workers=workers > 0, collate_fn=collate)
            rates[f"{kind}, {workers} workers"] = rate(lambda: [None for _ in loader])
    way = max(rates, key=rates.get)
    return rates[way], way


if __name__ == "__main__":
    data, settings, transforms, rows = load_data("shapes", n=IMAGES), {}, [], []
    for name, (our, their) in STEPS.items():
        settings |= our
        transforms += their() if their else []
        rate_, way = theirs(data, transforms, their is None)
        rows.append({"operations": name, "ours": ours(data, AugmentConfig(**settings)), "theirs": rate_,
                     "their_way": way})
        print(f"{name:32} ours {rows[-1]['ours']:9,.0f}   theirs {rate_:8,.0f} ({way})   "
              f"{rows[-1]['ours'] / rate_:.1f}×", flush=True)
    write_json(sys.argv[1] if len(sys.argv) > 1 else "results/augmentation.json",
               {"what": "images per second, best of the rounds", "images": IMAGES, "batch_size": BATCH,
                "rounds": ROUNDS, "rows": rows, "environment": environment()})
