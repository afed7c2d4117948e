from contextlib import contextmanager

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from vit_scratch.core import InputError

@contextmanager
def recording(model: nn.Module):
    "While open, every block's attention weights of each forward pass are appended to the list this yields."
    seen = []
    def note(attn, args, kwargs):                       # called with the very input the attention gets
        seen.append(attn.weights(*args, **kwargs).float().cpu())
    hooks = [block.attn.register_forward_pre_hook(note, with_kwargs=True) for block in model.blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()

@torch.no_grad()
def attention_maps(model: nn.Module,             # a `ViT`
                   x: Tensor,                    # images as the model reads them (B, C, H, W), float
                   mask: Tensor | None = None,   # attention mask
                  ) -> Tensor:                   # (L, B, h, T, T) on the CPU; rows sum to 1
    "Attention weights of every layer and head, recomputed inside the model's real forward pass in evaluation mode."
    if not all(hasattr(getattr(b, "attn", None), "weights") for b in getattr(model, "blocks", [None])):
        raise InputError(f"{type(model).__name__} has no blocks with our attention to look into")
    was_training = model.training
    model.eval()
    try:
        with recording(model) as seen:
            model(x.to(next(model.parameters()).device), *(() if mask is None else (mask,)))
    finally:
        model.train(was_training)
    return torch.stack(seen)

def over_image(maps: Tensor,                   # (L, B, h, T, T)
               grid_size: tuple[int, int],     # (rows, columns) of patches
               query: str | int = "cls",       # "cls", "mean" (over all patches), or a patch's number
              ) -> Tensor:                     # (L, B, h, rows, columns)
    "One query's attention laid over the image. Raises `InputError` where there is no such query."
    N = grid_size[0] * grid_size[1]
    prefix = maps.shape[-1] - N
    if query == "cls":
        if prefix < 1:
            raise InputError('this model has no class token; ask for query="mean" or a patch number')
        rows = maps[..., 0, :]                                        # (L, B, h, T)
    elif query == "mean":
        rows = maps[..., prefix:, :].mean(dim=-2)
    elif isinstance(query, int) and 0 <= query < N:
        rows = maps[..., prefix + query, :]
    else:
        raise InputError(f'query is {query!r}; give "cls", "mean", or a patch number from 0 to {N - 1}')
    return rows[..., prefix:].unflatten(-1, grid_size)

def share_on_object(patch_maps: Tensor,   # (…, B, h, rows, columns), from `over_image`
                    masks: Tensor,        # (B, H, W) bool, True on the object
                   ) -> Tensor:           # (…, B, h), between 0 and 1
    "The share of the attention paid to patches that falls on the object; what even attention would give is the object's area."
    rows = patch_maps.shape[-2]
    cover = F.avg_pool2d(masks.float()[:, None], masks.shape[-1] // rows)   # (B, 1, rows, columns): share of each patch
    return (patch_maps * cover).sum((-2, -1)) / patch_maps.sum((-2, -1))

def default_query(model: nn.Module) -> str:
    "The query the head reads: the class token, or the mean of the patches."
    return "cls" if model.cfg.pool == "cls" else "mean"

def show_attention(model: nn.Module,
                   img: Tensor,                   # (3, H, W) or (1, 3, H, W), as the model reads it
                   query: str | int | None = None,  # as in `over_image`; left out: what the head reads
                   layers: list[int] | None = None, # which layers; left out: all
                   figsize: tuple | None = None,
                  ) -> Figure:
    "Attention of every head (columns) in every layer (rows) over one image; one colour scale per layer, printed on its left."
    img = img[None] if img.ndim == 3 else img
    query = default_query(model) if query is None else query
    maps = over_image(attention_maps(model, img), model.cfg.grid_size, query)[:, 0]     # (L, h, rows, columns)
    layers = list(range(len(maps))) if layers is None else layers
    h = maps.shape[1]
    figsize = figsize or (1.15 * (h + 1) + 0.6, 1.15 * len(layers) + 0.35)
    fig, axes = plt.subplots(len(layers), h + 1, figsize=figsize, squeeze=False, layout="constrained")
    low, high = img.amin(), img.amax()
    picture = ((img[0] - low) / (high - low)).permute(1, 2, 0).cpu()
    for row, layer in zip(axes, layers):
        top = maps[layer].max().item()
        row[0].imshow(picture)
        row[0].set_ylabel(f"layer {layer + 1}\n0 – {top:.2g}", fontsize=8)
        for head, a in enumerate(row[1:]):
            a.imshow(picture.mean(-1), cmap="gray", extent=(0, 1, 0, 1))
            a.imshow(maps[layer, head], cmap="magma", vmin=0, vmax=top, alpha=0.75, extent=(0, 1, 0, 1))
            if layer == layers[0]:
                a.set_title(f"head {head + 1}", fontsize=8)
    for a in axes.flat:
        a.set(xticks=[], yticks=[])
    axes[0, 0].set_title("image", fontsize=8)
    return fig
