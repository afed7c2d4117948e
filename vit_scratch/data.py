from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vit_scratch.core import InputError
from vit_scratch.shapes import SHAPES, make_shapes

@dataclass(frozen=True)
class Split:
    "Images with their labels, all in memory."
    images: Tensor                # (n, C, H, W) uint8
    labels: Tensor                # (n,) int64
    masks: Tensor | None = None   # (n, H, W) bool, where the data set has them

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> "Split":   # a slice or a tensor of indices
        return Split(self.images[index], self.labels[index], None if self.masks is None else self.masks[index])

    def to(self, device) -> "Split":
        "The same images on another device."
        return Split(self.images.to(device), self.labels.to(device), self.masks)

@dataclass(frozen=True)
class ImageData:
    "A data set: three splits, the classes' names, and the colour statistics of its training images."
    name: str
    classes: list[str]
    train: Split
    val: Split
    test: Split | None
    mean: list[float]             # per channel, of pixel/255
    std: list[float]
    source: dict | None = None    # the arguments of `load_data` that give it again

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def in_chans(self) -> int:
        return self.train.images.shape[1]

    @property
    def img_size(self) -> int:
        return self.train.images.shape[-1]

def normalize(images: Tensor,      # (B, C, H, W) uint8
              mean: list[float],   # per channel, of pixel/255
              std: list[float],
             ) -> Tensor:          # (B, C, H, W) float, about mean 0 and deviation 1
    "Turn bytes into what the model reads."
    shape = (1, -1, 1, 1)
    mean, std = (torch.tensor(v, device=images.device).view(shape) for v in (mean, std))
    return (images.float() / 255 - mean) / std

def colour_stats(images: Tensor,   # (n, C, H, W) uint8
                ) -> tuple[list[float], list[float]]:
    "Mean and deviation of pixel/255 per channel."
    sums = torch.stack([torch.stack([part.double().sum((0, 2, 3)), part.double().square().sum((0, 2, 3))])
                        for part in images.split(4096)]).sum(0) / (images.numel() / images.shape[1])
    mean, square = sums / torch.tensor([[255.0], [255.0**2]])
    return mean.tolist(), (square - mean**2).clamp(min=1e-8).sqrt().tolist()

def split_indices(n: int,               # training images
                  fraction: float = 0.1,  # share that becomes validation
                  seed: int = 0,
                 ) -> tuple[Tensor, Tensor]:
    "Fixed, disjoint indices (train, validation), the same for the same n, fraction and seed."
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(n * fraction))
    if held_out >= n:
        raise InputError(f"{n} images leave none to train on when {held_out} are held out for validation")
    return order[held_out:].sort().values, order[:held_out].sort().values

def batches(split: Split,
            batch_size: int,                              # B
            generator: torch.Generator | None = None,     # shuffles; None keeps the order
            start: int = 0,                               # batches to leave out at the front
           ) -> Iterator[tuple[Tensor, Tensor]]:          # images (B, C, H, W) uint8, labels (B,)
    "Hand out batches of a split; the last one may be smaller unless the split is shuffled, then it is left out."
    n = len(split)
    order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
    last = n if generator is None else n - n % batch_size
    for i in range(start * batch_size, last, batch_size):
        index = order[i:i + batch_size].to(split.images.device)
        yield split.images[index], split.labels[index]

def to_rgb(image: Image.Image) -> Image.Image:
    "Any image as upright 8-bit RGB: EXIF rotation applied, 16 bits scaled to 8, transparency laid on white."
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":    # 16-bit grey; Pillow's own convert would clip at 255
        grey = np.asarray(image).astype(np.float64)
        image = Image.fromarray((grey / max(65535.0, grey.max()) * 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")

def read_image(path, img_size: int | None = None) -> Tensor:
    "One image file as (3, H, W) uint8; with `img_size`, its shorter side resized to that and the centre cut out."
    try:
        with Image.open(path) as image:
            image = to_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:    # Pillow raises all three for broken files
        if not Path(path).exists():
            raise InputError(f"no such image: {path}") from None
        raise InputError(f"cannot read image {path}: {error}") from None
    if img_size is not None and image.size != (img_size, img_size):
        image = ImageOps.fit(image, (img_size, img_size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

def folder_classes(folder: Path) -> list[str]:
    "The names of the class folders. Raises `InputError` for fewer than two."
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise InputError(f"{folder} holds {len(names)} class folder{'s'*(len(names) != 1)}{': ' + names[0] if names else ''}; a classifier needs at least two")
    return names

def read_folder(folder: Path, classes: list[str], img_size: int) -> Split:
    "All images below `folder`/class, in the order of the class list. Raises `InputError` naming what is missing or broken."
    if unknown := set(folder_classes(folder)) - set(classes):
        raise InputError(f"{folder} has class folders that train/ lacks: {', '.join(sorted(unknown))}")
    paths, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(p for p in (folder/name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise InputError(f"no images in {folder/name}")
        paths += files
        labels += [label] * len(files)
    with ThreadPoolExecutor() as pool:                     # Pillow decodes outside the interpreter lock
        images = torch.stack(list(pool.map(lambda p: read_image(p, img_size), paths)))
    return Split(images, torch.tensor(labels))

def load_folder(root, img_size: int = 32, val_fraction: float = 0.1, seed: int = 0) -> ImageData:
    "An image folder: `root`/{train,val,test}/class/… with val and test optional, or `root`/class/…, from which a tenth each is held out."
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"no such folder: {root}")
    if not (root/"train").is_dir():
        classes = folder_classes(root)
        everything = read_folder(root, classes, img_size)
        rest, test = (everything[i] for i in split_indices(len(everything), val_fraction, seed + 1))
        return finish(str(root.name), classes, rest, None, test, val_fraction, seed)
    classes = folder_classes(root/"train")
    train, val, test = (read_folder(root/part, classes, img_size) if (root/part).is_dir() else None for part in ("train", "val", "test"))
    return finish(root.resolve().name, classes, train, val, test, val_fraction, seed)

def finish(name: str, classes: list[str], train: Split, val: Split | None, test: Split | None, fraction: float, seed: int) -> ImageData:
    "Cut validation off the training images where there is none, and measure the colours of what is left."
    if val is None:
        train, val = (train[i] for i in split_indices(len(train), fraction, seed))
    return ImageData(name, classes, train, val, test, *colour_stats(train.images))

def load_cifar(name: str, root: str, val_fraction: float, seed: int) -> ImageData:
    "CIFAR-10 or CIFAR-100, downloaded by torchvision on first use."
    from torchvision import datasets
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        parts = [kind(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot get {name} into {root}: {error}") from None
    train, test = (Split(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets)) for p in parts)
    return finish(name, parts[0].classes, train, None, test, val_fraction, seed)

def load_shapes(name: str, n: int, img_size: int) -> ImageData:
    "The built-in data set: n training images, and a tenth as many (at least 500) for validation and for test."
    few = max(500, n // 10)
    train, val, test = (Split(*make_shapes(k, seed, img_size, hard=name == "shapes-hard")) for k, seed in ((n, 1), (few, 2), (few, 3)))
    return ImageData(name, list(SHAPES), train, val, test, *colour_stats(train.images))

def load_data(name: str = "shapes",        # "shapes", "shapes-hard", "cifar10", "cifar100", or a folder of images
              img_size: int = 32,          # side in pixels that folder images are brought to
              n: int = 20000,              # training images of shapes
              val_fraction: float = 0.1,   # share of the training images held out, where there is no val/ folder
              root: str = ".data",         # where downloads are kept
              seed: int = 0,               # which images are held out
              title: str = "",             # what results call the data set, if not its name
             ) -> ImageData:
    "Load a data set by name or path. Raises `InputError` for what does not exist or cannot be read."
    source = dict(locals())
    data = read_data(name, img_size, n, val_fraction, root, seed)
    return replace(data, name=title or data.name, source=source)

def read_data(name: str, img_size: int, n: int, val_fraction: float, root: str, seed: int) -> ImageData:
    "The data set behind a name or path."
    if name in ("shapes", "shapes-hard"):
        return load_shapes(name, n, img_size)
    if name in ("cifar10", "cifar100"):
        return load_cifar(name, root, val_fraction, seed)
    if Path(name).exists() or "/" in name:
        return load_folder(name, img_size, val_fraction, seed)
    raise InputError(f"unknown data set {name!r}: give shapes, shapes-hard, cifar10, cifar100, or the path of a folder of images")
