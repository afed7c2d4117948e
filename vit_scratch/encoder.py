import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_scratch.attention import Attention
from vit_scratch.core import InputError

class Mlp(nn.Module):
    "Two linear layers with a GELU between, applied to each token alone [ViT, §3.1]."
    def __init__(self, dim: int,       # D
                 hidden_dim: int,      # usually 4·D
                 drop: float = 0.0):   # dropout after each layer
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))

class DropPath(nn.Module):
    "Skip a residual branch for whole images at random, and scale the others up [Stochastic Depth, §3]."
    def __init__(self, drop_prob: float = 0.0):  # chance that an image skips the branch
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = torch.rand(len(x), *[1]*(x.ndim - 1), device=x.device) >= self.drop_prob  # (B, 1, 1)
        return x * keep.to(x.dtype) / (1 - self.drop_prob)

class LayerScale(nn.Module):
    "Multiply a branch by one learned number per channel, small at first [CaiT, §2]."
    def __init__(self, dim: int, init_values: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init_values))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma

class Block(nn.Module):
    "One pre-norm encoder block, (B, T, D) → (B, T, D): attention, then MLP, each added to its input [ViT, eq. 2–3]."
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = True, qk_norm: bool = False,
                 proj_drop: float = 0.0, attn_drop: float = 0.0, init_values: float | None = None, drop_path: float = 0.0):
        super().__init__()
        scale = lambda: nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, qkv_bias, qk_norm, attn_drop, proj_drop)
        self.ls1 = scale()
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), proj_drop)
        self.ls2 = scale()
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), mask)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

class Encoder(nn.Sequential):
    "Blocks one after the other, each given the same mask."
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self:
            x = block(x, mask)
        return x

# our name in a Block → the name in nn.TransformerEncoderLayer
TORCH_NAMES = {"attn.qkv.weight": "self_attn.in_proj_weight", "attn.qkv.bias": "self_attn.in_proj_bias",
               "attn.proj.": "self_attn.out_proj.", "mlp.fc1.": "linear1.", "mlp.fc2.": "linear2."}

def to_torch_encoder(blocks: Encoder) -> nn.TransformerEncoder:
    "The same encoder as an `nn.TransformerEncoder`, weights and dropout rates carried over. Raises `InputError` for what torch's layer lacks."
    first = blocks[0]
    D, drop = first.norm1.normalized_shape[0], first.mlp.drop1.p
    lacks = [name for name, there in {"qk_norm": isinstance(first.attn.q_norm, nn.LayerNorm), "LayerScale": isinstance(first.ls1, LayerScale),
             "drop path": any(b.drop_path1.drop_prob for b in blocks), "a missing qkv bias": first.attn.qkv.bias is None,
             "attn_drop other than proj_drop": first.attn.attn_drop.p != drop}.items() if there]
    if lacks:
        raise InputError(f"nn.TransformerEncoderLayer has no {', '.join(lacks)}")
    layer = nn.TransformerEncoderLayer(D, first.attn.num_heads, first.mlp.fc1.out_features, drop, F.gelu,
                                       layer_norm_eps=1e-6, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, len(blocks), enable_nested_tensor=False)
    state = {f"layers.{key}": value for key, value in blocks.state_dict().items()}
    for ours, theirs in TORCH_NAMES.items():
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    encoder.load_state_dict(state)
    return encoder.train(blocks.training)

def from_torch_encoder(encoder: nn.TransformerEncoder) -> Encoder:
    "The same encoder as our blocks, weights carried over. Raises `InputError` for a post-norm or ReLU encoder."
    first = encoder.layers[0]
    if not first.norm_first or first.activation not in (F.gelu,) and not isinstance(first.activation, nn.GELU):
        raise InputError("only a pre-norm GELU encoder (norm_first=True, activation='gelu') has the shape of our blocks")
    D, drop = first.linear1.in_features, first.dropout.p
    blocks = Encoder(*(Block(D, first.self_attn.num_heads, first.linear1.out_features / D, proj_drop=drop, attn_drop=drop)
                       for _ in encoder.layers))
    state = {key.removeprefix("layers."): value for key, value in encoder.state_dict().items()}
    for ours, theirs in TORCH_NAMES.items():
        state = {key.replace(theirs, ours): value for key, value in state.items()}
    blocks.load_state_dict(state)
    return blocks.train(encoder.training)
