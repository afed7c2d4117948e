from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vit_scratch.core import InputError
from vit_scratch.encoder import Block, Encoder
from vit_scratch.patches import PatchEmbed, check_divides
from vit_scratch.tokens import prepend_tokens, resample_pos_embed, sincos_pos_embed

@dataclass(frozen=True)
class ViTConfig:
    """Everything that fixes a Vision Transformer's shape. Validates itself; travels inside checkpoints.

    Args:
        img_size: side of the square input image, in pixels
        patch_size: P, side of a patch, in pixels
        in_chans: C, colour channels
        num_classes: outputs of the head; 0 for no head
        embed_dim: D, length of a token's vector
        depth: L, number of encoder blocks
        num_heads: h, attention heads in each block
        mlp_ratio: hidden width of the MLP, as a multiple of embed_dim
        qkv_bias: biases on queries, keys and values
        pool: what the head reads: "cls" (the class token) or "mean" (the average of the patches)
        class_token: put a class token in front; left out, only when pool is "cls"
        pos: positions: "learned", "sincos" (fixed) or "none"
        reg_tokens: number of register tokens
        qk_norm: LayerNorm on queries and keys
        init_values: LayerScale's first value; left out, no LayerScale
        drop_rate: dropout before the head
        pos_drop_rate: dropout after the positions are added
        proj_drop_rate: dropout in the MLP and after attention's projection
        attn_drop_rate: dropout on attention weights
        drop_path_rate: drop path of the last block; grows linearly from 0 with depth
    """
    img_size: int = 32
    patch_size: int = 4
    in_chans: int = 3
    num_classes: int = 10
    embed_dim: int = 192
    depth: int = 9
    num_heads: int = 3
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    pool: str = "cls"
    class_token: bool | None = None
    pos: str = "learned"
    reg_tokens: int = 0
    qk_norm: bool = False
    init_values: float | None = None
    drop_rate: float = 0.0
    pos_drop_rate: float = 0.0
    proj_drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self):
        for name, least in dict(img_size=1, patch_size=1, in_chans=1, num_classes=0, embed_dim=1, depth=1, num_heads=1, reg_tokens=0).items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        check_divides(self.img_size, self.img_size, self.patch_size)
        if self.embed_dim % self.num_heads:
            raise InputError(f"embed_dim {self.embed_dim} does not divide into num_heads {self.num_heads}")
        if self.pool not in ("cls", "mean") or self.pos not in ("learned", "sincos", "none"):
            raise InputError(f'pool is {self.pool!r} ("cls" or "mean"), pos is {self.pos!r} ("learned", "sincos" or "none")')
        if self.pool == "cls" and self.class_token is False:
            raise InputError('pool "cls" reads the class token; class_token=False leaves none (use pool "mean")')
        for name in ("drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 0 and less than 1")

    @property
    def grid_size(self) -> tuple[int, int]:
        "(rows, columns) of patches."
        return (self.img_size // self.patch_size,) * 2

    @property
    def num_prefix(self) -> int:
        "Tokens in front of the patches: class token and registers."
        return int(self.pool == "cls" if self.class_token is None else self.class_token) + self.reg_tokens

PRESETS = {
    "system-a": dict(img_size=32, patch_size=4, embed_dim=256, depth=10, num_heads=8, mlp_ratio=1.0),
    "system-b": dict(img_size=64, patch_size=8, embed_dim=512, depth=10, num_heads=8, mlp_ratio=2.0, num_classes=200),
    "system-c": dict(img_size=32, patch_size=4, embed_dim=192, depth=12, num_heads=3, mlp_ratio=4.0, num_classes=100),
    "system-d": dict(img_size=32, patch_size=4, embed_dim=192, depth=8, num_heads=6, mlp_ratio=4.0),
    "vit-ti": dict(img_size=224, patch_size=16, embed_dim=192, depth=12, num_heads=3, num_classes=1000),
    "vit-s": dict(img_size=224, patch_size=16, embed_dim=384, depth=12, num_heads=6, num_classes=1000),
    "vit-b": dict(img_size=224, patch_size=16, embed_dim=768, depth=12, num_heads=12, num_classes=1000),
    "vit-l": dict(img_size=224, patch_size=16, embed_dim=1024, depth=24, num_heads=16, num_classes=1000),
}

def preset(name: str,   # a key of `PRESETS`
           **changes,   # any field of `ViTConfig` to set differently
          ) -> ViTConfig:
    "A known model's configuration. Raises `InputError` for an unknown name."
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return ViTConfig(**{**PRESETS[name], **changes})

class ViT(nn.Module):
    "A Vision Transformer [ViT], (B, C, H, W) → (B, num_classes), with timm's parameter names."
    def __init__(self, cfg: ViTConfig = ViTConfig()):
        super().__init__()
        self.cfg, D = cfg, cfg.embed_dim
        self.patch_embed = PatchEmbed(cfg.img_size, cfg.patch_size, cfg.in_chans, D)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D)) if cfg.num_prefix > cfg.reg_tokens else None
        self.reg_token = nn.Parameter(torch.zeros(1, cfg.reg_tokens, D)) if cfg.reg_tokens else None
        shape = (1, cfg.num_prefix + self.patch_embed.num_patches, D)
        self.pos_embed = None if cfg.pos == "none" else nn.Parameter(torch.zeros(shape), requires_grad=cfg.pos == "learned")
        self.pos_drop = nn.Dropout(cfg.pos_drop_rate)
        rates = torch.linspace(0, cfg.drop_path_rate, cfg.depth).tolist()
        self.blocks = Encoder(*(Block(D, cfg.num_heads, cfg.mlp_ratio, cfg.qkv_bias, cfg.qk_norm, cfg.proj_drop_rate,
                                      cfg.attn_drop_rate, cfg.init_values, rate) for rate in rates))
        mean = cfg.pool == "mean"   # timm norms after the mean, and calls that norm fc_norm
        self.norm = nn.Identity() if mean else nn.LayerNorm(D, eps=1e-6)
        self.fc_norm = nn.LayerNorm(D, eps=1e-6) if mean else nn.Identity()
        self.head_drop = nn.Dropout(cfg.drop_rate)
        self.head = nn.Linear(D, cfg.num_classes) if cfg.num_classes else nn.Identity()
        init_weights(self)

    def forward_features(self, x: Tensor,                   # images (B, C, H, W)
                         mask: Tensor | None = None,        # attention mask, as in `Attention`
                        ) -> Tensor:                        # tokens (B, T, D)
        "Everything before the pooling and the head."
        x = prepend_tokens(self.patch_embed(x), *(t for t in (self.cls_token, self.reg_token) if t is not None))
        if self.pos_embed is not None:
            x = x + self.pos_embed
        x = self.pos_drop(x)
        x = self.blocks(x) if mask is None else self.blocks(x, mask)
        return self.norm(x)

    def forward_head(self, x: Tensor) -> Tensor:
        "Tokens (B, T, D) to logits (B, num_classes)."
        x = x[:, 0] if self.cfg.pool == "cls" else x[:, self.cfg.num_prefix:].mean(dim=1)   # (B, D)
        return self.head(self.head_drop(self.fc_norm(x)))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(x, mask))

def init_weights(model: ViT):
    "Truncated normal 0.02 weights, zero biases, norms 1 and 0; the patch projection by its fan-in [ViT's code; timm]."
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            fan_in = module.weight[0].numel()
            std = fan_in**-0.5 if isinstance(module, nn.Conv2d) else 0.02
            nn.init.trunc_normal_(module.weight, std=std, a=-2*std, b=2*std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for token in (model.cls_token, model.reg_token, model.pos_embed):
        if token is not None:
            nn.init.trunc_normal_(token, std=0.02, a=-0.04, b=0.04)
    if model.cfg.pos == "sincos":
        with torch.no_grad():
            model.pos_embed.zero_()[:, model.cfg.num_prefix:] = sincos_pos_embed(model.cfg.grid_size, model.cfg.embed_dim)

def num_params(cfg: ViTConfig) -> int:
    "How many trainable numbers a plain `ViT(cfg)` holds, by arithmetic alone."
    D, hidden, norm = cfg.embed_dim, int(cfg.embed_dim * cfg.mlp_ratio), 2 * cfg.embed_dim
    patches = (cfg.patch_size**2 * cfg.in_chans + 1) * D
    positions = (cfg.num_prefix + cfg.grid_size[0] * cfg.grid_size[1]) * D if cfg.pos == "learned" else 0
    attention = 3*D*D + 3*D*cfg.qkv_bias + D*D + D + (4 * D // cfg.num_heads) * cfg.qk_norm
    mlp = D*hidden + hidden + hidden*D + D
    block = 2*norm + attention + mlp + (0 if cfg.init_values is None else 2*D)
    head = (D + 1) * cfg.num_classes
    return patches + cfg.num_prefix*D + positions + cfg.depth*block + norm + head

def resize_model(model: ViT,
                 img_size: int,   # the new side, in pixels
                ) -> ViT:
    "A copy of the model for another image size, its positions resampled."
    other = ViT(replace(model.cfg, img_size=img_size))
    state = dict(model.state_dict())
    if model.cfg.pos == "learned":
        state["pos_embed"] = resample_pos_embed(model.pos_embed.detach(), model.cfg.grid_size, other.cfg.grid_size, model.cfg.num_prefix)
    elif model.cfg.pos == "sincos":
        state["pos_embed"] = other.pos_embed.detach()
    other.load_state_dict(state)
    return other.train(model.training)
