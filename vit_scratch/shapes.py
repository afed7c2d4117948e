import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vit_scratch.core import InputError

def box(p: Tensor, half_width: float, half_height: float) -> Tensor:
    "Signed distance to a rectangle around the origin."
    x, y = p[..., 0].abs() - half_width, p[..., 1].abs() - half_height
    return torch.maximum(x, y)

def disc(p: Tensor, radius: float, x: float = 0.0, y: float = 0.0) -> Tensor:
    "Signed distance to a disc."
    return torch.hypot(p[..., 0] - x, p[..., 1] - y) - radius

def half_planes(p: Tensor, angles: list[float], offset: float) -> Tensor:
    "Signed distance to the polygon whose sides lie `offset` away in these directions (degrees)."
    sides = [p[..., 0]*math.cos(math.radians(a)) + p[..., 1]*math.sin(math.radians(a)) for a in angles]
    return torch.stack(sides).amax(dim=0) - offset

def star(p: Tensor) -> Tensor:
    "Five points: fold the plane into one tenth of it, then one straight edge."
    angle = torch.atan2(p[..., 0], -p[..., 1])                       # 0 points up
    tenth = (angle.abs() % (2*math.pi/5))
    tenth = torch.minimum(tenth, 2*math.pi/5 - tenth)                # 0 at a tip, 36° in a notch
    r = torch.hypot(p[..., 0], p[..., 1])
    x, y = r * tenth.sin(), r * tenth.cos()
    notch = 0.45
    nx, ny = notch * math.sin(math.pi/5), notch * math.cos(math.pi/5)
    length = math.hypot(1 - ny, nx)
    return ((1 - ny)*x + nx*(y - 1)) / length                         # left of the edge from tip (0, 1) to notch

def heart(p: Tensor) -> Tensor:
    "Two discs on top of a square that stands on its corner."
    square = (p[..., 0].abs() + (p[..., 1] - 0.02).abs()) / math.sqrt(2) - 0.6
    lobes = torch.minimum(disc(p, 0.6, 0.42, -0.41), disc(p, 0.6, -0.42, -0.41))
    return torch.minimum(square, lobes)

# class name → signed distance of points (…, 2), x to the right and y down, to a shape of radius about 1; negative inside
SHAPES = {
    "circle": lambda p: disc(p, 0.9),
    "ring": lambda p: disc(p, 0.72).abs() - 0.24,
    "crescent": lambda p: torch.maximum(disc(p, 1.0), -disc(p, 0.85, 0.5)),
    "semicircle": lambda p: torch.maximum(disc(p, 1.1, 0, 0.4), p[..., 1] - 0.4),
    "triangle": lambda p: half_planes(p, [90, 210, 330], 0.55),
    "square": lambda p: box(p, 0.8, 0.8),
    "star": star,
    "cross": lambda p: torch.minimum(box(p, 1.0, 0.32), box(p, 0.32, 1.0)),
    "heart": heart,
    "arrow": lambda p: torch.minimum(torch.maximum(half_planes(p, [90, 210, 330], 0.5), p[..., 1] - 0.1),
                                     torch.maximum(box(p, 0.28, 1.0), -0.1 - p[..., 1])),
}

def pick_colours(n: int, contrast: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    "Background and shape colours (n, 3) at least `contrast` apart in RGB."
    background = torch.rand(n, 3, generator=generator)
    tries = torch.rand(n, 8, 3, generator=generator)
    opposite = (background < 0.5).float()[:, None]                    # a corner of the colour cube at least √3/2 away
    tries = torch.cat([tries, opposite], dim=1)                       # (n, 9, 3)
    far = (tries - background[:, None]).norm(dim=-1) >= contrast      # (n, 9)
    return background, tries[torch.arange(n), far.int().argmax(dim=1)]

def draw(labels: Tensor, size: int, radius, rotation: float, contrast: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    "Images (n, 3, size, size) between 0 and 1 and masks (n, size, size) for these labels."
    n = len(labels)
    uniform = lambda low, high, *shape: low + (high - low) * torch.rand(n, *shape, generator=g)
    r = uniform(*radius)
    centre = size/2 + (size/2 - r - 1).clamp(min=0)[:, None] * uniform(-1, 1, 2)
    angle = uniform(-math.radians(rotation), math.radians(rotation))
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    pixel = torch.stack([x, y], dim=-1)                               # (size, size, 2)
    offset = pixel - centre[:, None, None]                            # (n, size, size, 2)
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=-1).view(n, 2, 2)
    p = offset @ turn.mT[:, None] / r[:, None, None, None]                     # the shape's own coordinates
    distance = torch.empty(n, size, size)
    for c, shape in enumerate(SHAPES.values()):
        distance[labels == c] = shape(p[labels == c])
    coverage = (0.5 - distance * r[:, None, None]).clamp(0, 1)[:, None]   # (n, 1, size, size), soft at the edge

    background, colour = (c[:, :, None, None] for c in pick_colours(n, contrast, g))
    texture = F.interpolate(uniform(-1, 1, 3, 5, 5), size=(size, size), mode="bicubic", align_corners=True)
    image = background + 0.1 * texture
    for _ in range(2):                                                # distractors, always behind the shape
        blob = disc(pixel - uniform(2, size - 2, 1, 1, 2), 0.0) - uniform(1.5, 3.0, 1, 1)
        image = image + (0.5 - blob).clamp(0, 1)[:, None] * (uniform(0, 1, 3, 1, 1) - image)
    image = image + coverage * (colour + 0.05 * texture.flip(1) - image)
    image = image + 0.02 * torch.randn(image.shape, generator=g)
    return image.clamp(0, 1), distance < 0

def make_shapes(n: int,                 # how many images
                seed: int = 0,          # the same seed gives the same images
                size: int = 32,         # side in pixels
                hard: bool = False,     # smaller shapes, any rotation, weaker contrast
               ) -> tuple[Tensor, Tensor, Tensor]:  # images (n, 3, H, W) uint8, labels (n,), masks (n, H, W) bool
    "Draw n coloured shapes on textured backgrounds, with the mask of each. Raises `InputError` for n < 1 or size < 16."
    if n < 1 or size < 16:
        raise InputError(f"make_shapes needs n ≥ 1 and size ≥ 16, got n = {n}, size = {size}")
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(SHAPES), (n,), generator=g)
    radius = [size/32 * r for r in ((6, 11) if hard else (9, 13))]
    rotation, contrast = (180, 0.35) if hard else (22, 0.6)
    drawn = [draw(part, size, radius, rotation, contrast, g) for part in labels.split(1000)]   # 1000 at a time bounds memory
    images, masks = (torch.cat(parts) for parts in zip(*drawn))
    return (images * 255).round().to(torch.uint8), labels, masks
