"A Vision Transformer from scratch: the public names."
__version__ = "0.1.0"

from vit_scratch.core import InputError
from vit_scratch.data import load_data
from vit_scratch.explain import explain
from vit_scratch.explorer import explore
from vit_scratch.maps import attention_maps, show_attention
from vit_scratch.runs import load_run
from vit_scratch.settings import TrainConfig
from vit_scratch.splits import ImageData, normalize
from vit_scratch.training import fit
from vit_scratch.vit import ViT, ViTConfig, preset

__all__ = ["ImageData", "InputError", "TrainConfig", "ViT", "ViTConfig", "attention_maps", "explain", "explore", "fit", "load_data", "load_run", "normalize", "preset", "show_attention"]
