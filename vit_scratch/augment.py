import torch
import torch.nn.functional as F
from torch import Tensor

from vit_scratch.core import InputError

def random_flip(x: Tensor,                              # images (B, C, H, W)
                generator: torch.Generator,             # a CPU generator
                p: float = 0.5,                         # chance of a flip
               ) -> Tensor:
    "Mirror each image left to right with its own coin."
    heads = (torch.rand(len(x), generator=generator) < p).to(x.device)
    return torch.where(heads[:, None, None, None], x.flip(-1), x)

def shift_crop(x: Tensor,        # images (B, C, H, W)
               top: Tensor,      # (B,) rows, 0 … 2·padding
               left: Tensor,     # (B,) columns, 0 … 2·padding
               padding: int,     # pixels of zeros added on every side first
              ) -> Tensor:       # (B, C, H, W)
    "Pad every image, then cut each at its own place."
    B, C, H, W = x.shape
    padded = F.pad(x, [padding]*4)
    rows = (top[:, None] + torch.arange(H)).to(x.device)      # (B, H)
    cols = (left[:, None] + torch.arange(W)).to(x.device)     # (B, W)
    image = torch.arange(B, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)   # one gather

def random_crop(x: Tensor,                     # images (B, C, H, W)
                padding: int,                  # pixels
                generator: torch.Generator,    # a CPU generator
               ) -> Tensor:
    "Shift each image by up to `padding` pixels each way, its own draw for each. Raises `InputError` for a negative padding."
    if padding < 0:
        raise InputError(f"crop padding is {padding}; it must be at least 0")
    top, left = torch.randint(2*padding + 1, (2, len(x)), generator=generator)
    return shift_crop(x, top, left, padding)

def augment(x: Tensor,                     # images (B, C, H, W), uint8 or float
            generator: torch.Generator,    # a CPU generator: the same state gives the same images
            crop_padding: int = 4,         # pixels; 0 for no crop
            flip: bool = True,
           ) -> Tensor:
    "The training augmentation of a batch, on its device."
    if crop_padding:
        x = random_crop(x, crop_padding, generator)
    return random_flip(x, generator) if flip else x
