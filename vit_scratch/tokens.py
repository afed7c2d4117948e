import torch
import torch.nn.functional as F
from torch import Tensor

from vit_scratch.core import InputError

def sincos_pos_embed(grid_size: tuple[int, int],   # (rows, columns) of patches
                     embed_dim: int,               # D, a multiple of 4
                     temperature: float = 10000.0, # the longest wavelength is 2π·temperature patches
                    ) -> Tensor:                   # (N, D), patches row by row
    "Fixed 2-D positions: sines and cosines of the row in one half, of the column in the other [MoCo v3, §4; MAE, §A]."
    if embed_dim % 4:
        raise InputError(f"embed_dim is {embed_dim}; sin-cos positions need a multiple of 4")
    rows, cols = torch.meshgrid(torch.arange(grid_size[0]), torch.arange(grid_size[1]), indexing="ij")
    freq = temperature ** (-torch.arange(embed_dim//4) / (embed_dim//4))    # (D/4,)
    angle = torch.stack([rows, cols]).flatten(1)[..., None] * freq          # (2, N, D/4)
    return torch.cat([angle[0].sin(), angle[0].cos(), angle[1].sin(), angle[1].cos()], dim=-1)  # (N, D)

def prepend_tokens(x: Tensor,        # patch vectors (B, N, D)
                   *tokens: Tensor,  # learned vectors, each (1, n, D): class token, registers
                  ) -> Tensor:       # (B, T, D)
    "Put learned tokens in front of every image's patches [ViT, §3.1; Registers, §2.2]."
    return torch.cat([*(t.expand(len(x), -1, -1) for t in tokens), x], dim=1)

def position_similarity(pos_embed: Tensor,  # (N, D), patches only
                       ) -> Tensor:         # (N, N), between −1 and 1
    "Cosine similarity of every position's vector with every other's [ViT, fig. 7]."
    unit = F.normalize(pos_embed.detach(), dim=-1)
    return unit @ unit.T

def resample_pos_embed(pos_embed: Tensor,          # (1, prefix + N, D)
                       old_grid: tuple[int, int],  # (rows, columns) it was made for
                       new_grid: tuple[int, int],  # (rows, columns) wanted
                       num_prefix: int = 1,        # class token and registers, which stay as they are
                      ) -> Tensor:                 # (1, prefix + N', D)
    "Stretch learned positions to another grid of patches, as timm does [ViT, §3.2]."
    if pos_embed.shape[1] != num_prefix + old_grid[0]*old_grid[1]:
        raise InputError(f"{pos_embed.shape[1]} positions are not {num_prefix} + {old_grid[0]}×{old_grid[1]}")
    prefix, grid = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    grid = grid.reshape(1, *old_grid, -1).permute(0, 3, 1, 2)               # (1, D, rows, columns)
    grid = F.interpolate(grid, size=new_grid, mode="bicubic", antialias=True)
    return torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)
