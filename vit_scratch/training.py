import math, time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from vit_scratch.amp import autocast, choose_amp
from vit_scratch.augment import augment
from vit_scratch.checkpoint import load_checkpoint, load_weights, new_run_folder, save_whole, write_config, write_history, write_result
from vit_scratch.core import InputError, pick_device
from vit_scratch.data import ImageData, batches, normalize
from vit_scratch.evaluation import evaluate
from vit_scratch.optim import make_optimizers, set_lr, warmup_cosine
from vit_scratch.progress import Progress, interrupts

@dataclass(frozen=True)
class TrainConfig:
    """How to train. Validates itself; travels inside checkpoints.

    Args:
        epochs: passes over the training images
        batch_size: images in a step
        optimizer: "adamw", "adam", or "muon" (Muon for the blocks' matrices, AdamW for the rest)
        lr: highest learning rate of AdamW or Adam
        muon_lr: highest learning rate of Muon
        weight_decay: for matrices only
        warmup_epochs: passes of linear warmup
        warmup_start: share of the learning rate at the first step
        final_lr: share of the learning rate the cosine ends at
        label_smoothing: share of the target spread over all classes
        clip_grad: longest gradient allowed, over all parameters; 0 for no clipping
        amp: "auto" (bf16 where it multiplies faster, fp16 on GPUs without it), "bf16", "fp16" or "off"
        crop_padding: pixels of the random crop; 0 for none
        flip: mirror images at random
        seed: initialises the order of images, their augmentation and dropout
        device: "auto", "cpu", "cuda" or "mps"
    """
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 1e-3
    muon_lr: float = 0.02
    weight_decay: float = 0.05
    warmup_epochs: float = 0.5
    warmup_start: float = 0.01
    final_lr: float = 0.0
    label_smoothing: float = 0.0
    clip_grad: float = 1.0
    amp: str = "auto"
    crop_padding: int = 4
    flip: bool = True
    seed: int = 0
    device: str = "auto"

    def __post_init__(self):
        least = dict(epochs=1, batch_size=1, lr=0, muon_lr=0, weight_decay=0, warmup_epochs=0, warmup_start=0, final_lr=0, label_smoothing=0, clip_grad=0, crop_padding=0, seed=0)
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {low}")
        for name, choices in dict(optimizer=("adamw", "adam", "muon"), amp=("auto", "bf16", "fp16", "off")).items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        if self.warmup_epochs >= self.epochs:
            raise InputError(f"warmup_epochs {self.warmup_epochs} leaves nothing of {self.epochs} epochs")

class Trainer:
    "A run in progress: the model, what optimises it, and how far it has come."
    def __init__(self, model: nn.Module, data: ImageData, cfg: TrainConfig):
        check(data, cfg)
        self.device = pick_device(cfg.device)
        self.cfg = replace(cfg, amp=choose_amp(cfg.amp, self.device))
        self.model, self.data = model.to(self.device), data
        self.train_split = data.train.to(self.device)
        self.optimizers = make_optimizers(model, cfg.optimizer, cfg.lr, cfg.muon_lr, cfg.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.cfg.amp == "fp16")
        self.steps_per_epoch = len(data.train) // cfg.batch_size
        self.epoch, self.batch, self.loss_sum, self.seconds = 0, 0, 0.0, 0.0
        self.history, self.best = [], None
        torch.manual_seed(cfg.seed)

    def draws(self, *place: int) -> torch.Generator:
        "Random numbers that depend only on the seed and the place in the run, so that resuming needs no memory of them."
        number = self.cfg.seed
        for part in place:
            number = (number * 1_000_003 + part + 1) % 2**63
        return torch.Generator().manual_seed(number)

    def step(self, images: Tensor, labels: Tensor):   # (B, C, H, W) uint8, (B,)
        "One batch: augment, forward, backward, clip, update."
        cfg = self.cfg
        set_lr(self.optimizers, self.lr_factor())
        images = augment(images, self.draws(self.epoch, self.batch), cfg.crop_padding, cfg.flip)
        with autocast(cfg.amp, self.device):
            logits = self.model(normalize(images, self.data.mean, self.data.std))
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=cfg.label_smoothing)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        if cfg.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), cfg.clip_grad)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.loss_sum = self.loss_sum + loss.detach()
        self.batch += 1

    def lr_factor(self) -> float:
        "The schedule at the current step."
        step, total = self.epoch * self.steps_per_epoch + self.batch, self.cfg.epochs * self.steps_per_epoch
        return warmup_cosine(step, total, round(self.cfg.warmup_epochs * self.steps_per_epoch), self.cfg.warmup_start, self.cfg.final_lr)

    def train_epoch(self, progress: Progress, asked):
        "The rest of the current epoch; ends early when `asked.is_set()`."
        self.model.train()
        todo = batches(self.train_split, self.cfg.batch_size, self.draws(self.epoch), start=self.batch)
        start, before = time.perf_counter(), self.seconds
        for images, labels in progress.batches(todo, self.steps_per_epoch - self.batch):
            self.step(images, labels)
            self.seconds = before + time.perf_counter() - start
            if self.batch % 10 == 0:
                progress.comment(f"loss {float(self.loss_sum) / self.batch:.3f}")
            if asked.is_set():
                break

    def finish_epoch(self) -> dict:
        "Validate, add a row to the history, and move on to the next epoch."
        train_loss = float(self.loss_sum) / self.steps_per_epoch
        if not math.isfinite(train_loss):
            raise InputError(f"the training loss of epoch {self.epoch + 1} is {train_loss}; lower the learning rate "
                             f"({self.cfg.lr:g}) or clip the gradient (clip_grad {self.cfg.clip_grad:g})")
        lr, start = self.lr_factor() * self.cfg.lr, time.perf_counter()
        val = evaluate(self.model, self.data.val, self.data, amp=self.cfg.amp)
        seen = self.steps_per_epoch * self.cfg.batch_size
        row = {"epoch": self.epoch + 1, "lr": lr, "train_loss": train_loss, "val_loss": val["loss"], "val_accuracy": val["accuracy"],
               "images_seen": (self.epoch + 1) * seen, "images_per_second": seen / self.seconds, "seconds": self.seconds + time.perf_counter() - start}
        self.history.append(row)
        if self.best is None or row["val_accuracy"] > self.best["val_accuracy"]:
            self.best = {**row, "model": {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}}
        self.epoch, self.batch, self.loss_sum, self.seconds = self.epoch + 1, 0, 0.0, 0.0
        return row

    def state_dict(self) -> dict:
        "All that is needed to go on from here with the same numbers."
        return {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers], "scaler": self.scaler.state_dict(),
                "epoch": self.epoch, "batch": self.batch, "loss_sum": float(self.loss_sum), "seconds": self.seconds,
                "history": self.history, "best": self.best, "train": asdict(self.cfg), "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []}

    def load_state_dict(self, state: dict):
        "Go back to where a checkpoint was written. Raises `InputError` for weights of another shape."
        load_weights(self.model, state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.loss_sum, self.seconds = (state[k] for k in ("epoch", "batch", "loss_sum", "seconds"))
        self.history, self.best = state["history"], state["best"]
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["cuda_rng"])

def check(data: ImageData, cfg: TrainConfig):
    "Refuse before the first step what could not end well. Raises `InputError`."
    if cfg.batch_size > len(data.train):
        raise InputError(f"batch_size {cfg.batch_size} is larger than the training set of {len(data.train)} images")
    for name in ("train", "val"):
        labels = getattr(data, name).labels
        if not len(labels):
            raise InputError(f"the {name} split is empty")
        if labels.min() < 0 or labels.max() >= data.num_classes:
            raise InputError(f"{name} has labels from {labels.min()} to {labels.max()}; with {data.num_classes} classes they go from 0 to {data.num_classes - 1}")

@dataclass
class Run:
    "What `fit` returns; the model then holds the best epoch's weights."
    history: list[dict]      # a row per epoch
    best_epoch: int          # the epoch with the best validation accuracy
    val: dict                # `evaluate` on the validation split with its weights
    test: dict | None        # the same on the test split, read once
    folder: Path | None

def fit(model: nn.Module,                        # maps images (B, C, H, W) to logits (B, num_classes)
        data: ImageData,
        cfg: TrainConfig = TrainConfig(),
        out=None,                                # run folder; None writes nothing
        resume: bool = False,                    # go on from `out`/last.pt
        test: bool = True,                       # read the test images, once, at the end
        quiet: bool = False,
       ) -> Run:
    "Train, keep the weights with the best validation accuracy, read the test images once. Ctrl-C writes last.pt, then raises `KeyboardInterrupt`."
    trainer = Trainer(model, data, cfg)
    folder = None if out is None else Path(out) if resume else new_run_folder(out)
    if resume:
        trainer.load_state_dict(load_checkpoint(folder/"last.pt"))
    elif folder:
        write_config(folder, model, trainer.cfg, data)
    progress = Progress(trainer.epoch, cfg.epochs, quiet)
    with interrupts() as asked:
        for _ in progress.epochs():
            trainer.train_epoch(progress, asked)
            if trainer.batch == trainer.steps_per_epoch:
                progress.row(trainer.finish_epoch(), trainer.history)
            if folder:
                save_progress(trainer, folder)
            if asked.is_set():
                break
    if trainer.epoch < cfg.epochs:
        raise KeyboardInterrupt("training was interrupted")
    return finish(trainer, folder, test)

def save_progress(trainer: Trainer, folder: Path):
    "last.pt always; best.pt and the history when an epoch has ended."
    save_whole(folder/"last.pt", trainer.state_dict())
    if trainer.history and trainer.batch == 0:
        write_history(folder, trainer.history)
        if trainer.best["epoch"] == trainer.epoch:
            save_whole(folder/"best.pt", {**trainer.state_dict(), "model": trainer.best["model"]})

def finish(trainer: Trainer, folder: Path | None, test: bool) -> Run:
    "Put the best weights into the model, evaluate them, write the results."
    trainer.model.load_state_dict(trainer.best["model"])
    data, amp = trainer.data, trainer.cfg.amp
    val = evaluate(trainer.model, data.val, data, amp=amp)
    tested = evaluate(trainer.model, data.test, data, amp=amp) if test and data.test is not None else None
    if folder:
        save_file(trainer.best["model"], str(folder/"model.safetensors"))
        write_result(folder, trainer.model, trainer.cfg, data, trainer.history, trainer.best["epoch"], val, tested)
    return Run(trainer.history, trainer.best["epoch"], val, tested, folder)
