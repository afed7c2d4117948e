import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_scratch.amp import autocast
from vit_scratch.data import ImageData, Split, normalize

@torch.no_grad()
def predict_logits(model: nn.Module,
                   images: Tensor,        # (n, C, H, W) uint8
                   data: ImageData,       # whose mean and deviation to use
                   batch_size: int = 512,
                   amp: str = "off",
                  ) -> Tensor:            # (n, num_classes) float, on the CPU
    "The model's answers in evaluation mode, without augmentation; the model's mode is restored."
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    try:
        parts = []
        for part in images.split(batch_size):
            with autocast(amp, device):
                parts.append(model(normalize(part.to(device), data.mean, data.std)).float())
        return torch.cat(parts).cpu()
    finally:
        model.train(was_training)

def evaluate(model: nn.Module,
             split: Split,
             data: ImageData,     # classes, mean and deviation
             batch_size: int = 512,
             amp: str = "off",
            ) -> dict:            # loss (nats), accuracy (0–1), per_class (list of accuracies; None where a class has no image)
    "Loss and accuracy over a split."
    logits, labels = predict_logits(model, split.images, data, batch_size, amp), split.labels.cpu()
    right = (logits.argmax(-1) == labels).float()
    per_class = [right[labels == c].mean().item() if (labels == c).any() else None for c in range(data.num_classes)]
    return {"loss": F.cross_entropy(logits, labels).item(), "accuracy": right.mean().item(), "per_class": per_class}
