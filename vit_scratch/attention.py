import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_scratch.core import InputError

def attention_weights(q: Tensor,                   # queries (B, h, T, d)
                      k: Tensor,                   # keys (B, h, T, d)
                      mask: Tensor | None = None,  # broadcasts to (B, h, T, T): bool, True = may look; or float, added to the scores
                     ) -> Tensor:                  # (B, h, T, T), each row sums to 1
    "Who looks at whom: softmax of q·kᵀ/√d [Attention, eq. 1]."
    scores = (q * q.shape[-1]**-0.5) @ k.transpose(-2, -1)                  # (B, h, T, T)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)

PLAIN_UP_TO = 256   # tokens; measured in this chapter

def plain_is_faster(q: Tensor,  # queries (B, h, T, d)
                   ) -> bool:
    "True where two matrix products beat the fused kernel: training with short sequences on a CPU."
    return q.device.type == "cpu" and q.shape[-2] <= PLAIN_UP_TO and torch.is_grad_enabled()

class Attention(nn.Module):
    "Multi-head self-attention, (B, T, D) → (B, T, D) [Attention, §3.2.2], under timm's names."
    def __init__(self, dim: int,            # D
                 num_heads: int = 8,        # h
                 qkv_bias: bool = True,     # biases on the three input projections
                 qk_norm: bool = False,     # LayerNorm on each head's queries and keys [ViT-22B, §2]
                 attn_drop: float = 0.0,    # dropout on the attention weights
                 proj_drop: float = 0.0,    # dropout on the output
                ):
        super().__init__()
        if dim % num_heads:
            raise InputError(f"embed_dim {dim} does not divide into num_heads {num_heads}")
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv = nn.Linear(dim, 3*dim, bias=qkv_bias)
        self.q_norm = nn.LayerNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim, eps=1e-6) if qk_norm else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        "Queries, keys and values of each head, each (B, h, T, d)."
        B, T, _ = x.shape
        qkv = self.qkv(x).reshape(B, T, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)  # (3, B, h, T, d)
        q, k, v = qkv.unbind(0)
        return self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        "The attention weights for input x, (B, h, T, T), before dropout; whichever path `forward` takes."
        q, k, _ = self.heads(x)
        return attention_weights(q, k, mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        B, T, D = x.shape
        q, k, v = self.heads(x)
        if plain_is_faster(q):
            x = self.attn_drop(attention_weights(q, k, mask)) @ v           # (B, h, T, d)
        else:
            p = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        x = x.transpose(1, 2).reshape(B, T, D)                              # heads side by side again
        return self.proj_drop(self.proj(x))
