import torch
from torch import Tensor, nn

from vit_scratch.core import InputError

def check_divides(height: int, width: int,  # the image, in pixels
                  patch_size: int):          # P, in pixels
    "Raise `InputError` naming both numbers unless whole patches tile the image."
    for name, n in (("height", height), ("width", width)):
        if patch_size < 1 or n % patch_size:
            raise InputError(f"image is {height}×{width}; patch_size {patch_size} does not divide {name} {n}")

def patchify(x: Tensor,          # images (B, C, H, W)
             patch_size: int,    # P, side of a square patch in pixels
            ) -> Tensor:         # patches (B, N, C·P·P), row by row; inside a patch channel first, as in a convolution's kernel
    "Cut images into non-overlapping square patches [ViT, §3.1]. Raises `InputError` if P does not divide H and W."
    B, C, H, W = x.shape
    P = patch_size
    check_divides(H, W, P)
    x = x.reshape(B, C, H//P, P, W//P, P)                                   # (B, C, rows, P, columns, P)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(B, (H//P)*(W//P), C*P*P)     # (B, N, C·P·P)

def unpatchify(patches: Tensor,             # (B, N, C·P·P)
               patch_size: int,             # P
               img_size: tuple[int, int],   # (H, W) of the image, in pixels
              ) -> Tensor:                  # images (B, C, H, W)
    "The inverse of `patchify`. Raises `InputError` if the patches do not fill the image."
    (B, N, values), (H, W), P = patches.shape, img_size, patch_size
    check_divides(H, W, P)
    if N != (H//P)*(W//P) or values % P**2:
        raise InputError(f"{N} patches of {values} values do not make a {H}×{W} image with patch_size {P}, "
                         f"which takes {(H//P)*(W//P)} patches of C·{P**2}")
    x = patches.reshape(B, H//P, W//P, values//P**2, P, P)                  # (B, rows, columns, C, P, P)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(B, values//P**2, H, W)       # (B, C, H, W)

class PatchEmbed(nn.Module):
    "Images (B, C, H, W) to patch vectors (B, N, D): one linear map for every patch [ViT, eq. 1]."
    def __init__(self, img_size: int | tuple[int, int] = 32,  # side, or (height, width), in pixels
                 patch_size: int = 4,   # P
                 in_chans: int = 3,     # C
                 embed_dim: int = 192,  # D
                ):
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        check_divides(*self.img_size, patch_size)
        self.patch_size = patch_size
        self.grid_size = (self.img_size[0]//patch_size, self.img_size[1]//patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        if (C := self.proj.in_channels) != x.shape[1]:
            raise InputError(f"image has {x.shape[1]} channels, the model was built for {C}")
        if tuple(x.shape[-2:]) != self.img_size:
            raise InputError(f"image is {x.shape[-2]}×{x.shape[-1]}, the model was built for {self.img_size[0]}×{self.img_size[1]}")
        return self.proj(x).flatten(2).transpose(1, 2)                      # (B, D, rows, columns) → (B, N, D)
