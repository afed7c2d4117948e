import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vit_scratch.checkpoint import load_weights
from vit_scratch.core import InputError, count_params, pick_device, set_seed
from vit_scratch.data import ImageData, load_data, normalize, read_image
from vit_scratch.maps import show_attention
from vit_scratch.evaluation import evaluate
from vit_scratch.training import Run, TrainConfig, fit
from vit_scratch.vit import ViT, ViTConfig

@dataclass
class LoadedRun:
    "A trained model with what it takes to use it."
    model: ViT
    classes: list[str]
    mean: list[float]
    std: list[float]
    config: dict            # the whole of config.yaml

    def images(self, paths: list) -> Tensor:
        "Image files as the model reads them, (n, C, H, W) float on its device."
        images = torch.stack([read_image(p, self.model.cfg.img_size) for p in paths])
        return normalize(images, self.mean, self.std).to(next(self.model.parameters()).device)

    @torch.no_grad()
    def predict(self, paths: list) -> Tensor:
        "Class probabilities (n, num_classes) for image files."
        return self.model(self.images(paths)).softmax(-1).cpu()

def read_config(folder) -> dict:
    "A run's config.yaml. Raises `InputError` if the folder holds no run."
    path = Path(folder)/"config.yaml"
    if not path.exists():
        raise InputError(f"{folder} holds no run: there is no {path.name} in it")
    return yaml.safe_load(path.read_text(encoding="utf-8"))

def load_run(folder, device: str = "auto") -> LoadedRun:
    "The model of a finished run, ready to use. Raises `InputError` for a folder without one, or with weights of another shape."
    config, path = read_config(folder), Path(folder)/"model.safetensors"
    if not path.exists():
        raise InputError(f"the run in {folder} is not finished (no {path.name}); go on with it: vit_scratch train --resume --out {folder}")
    model = ViT(ViTConfig(**config["model"]))
    try:
        load_weights(model, load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from None
    data = config["data"]
    return LoadedRun(model.eval().to(pick_device(device)), data["classes"], data["mean"], data["std"], config)

def next_folder(name: str) -> Path:
    "runs/name, or runs/name-2, -3 … where that holds a run already."
    n = 1
    while (folder := Path("runs") / (name if n == 1 else f"{name}-{n}")).joinpath("config.yaml").exists():
        n += 1
    return folder

def train_run(model_args: dict, cfg: TrainConfig, data_args: dict, out=None) -> Run:
    "Load the data, build the model to match it, train, and draw the attention picture."
    data = load_data(**data_args)
    model_cfg = ViTConfig(**{**model_args, "img_size": data.img_size, "in_chans": data.in_chans, "num_classes": data.num_classes})
    set_seed(cfg.seed)
    return run_fit(ViT(model_cfg), data, cfg, next_folder(Path(data_args["name"]).name) if out is None else Path(out), False)

def resume_run(out) -> Run:
    "Go on with an interrupted run, with the configuration it was started with."
    config = read_config(out)
    if (Path(out)/"model.safetensors").exists():
        raise InputError(f"the run in {out} is finished; nothing to resume")
    data = load_data(**config["data"]["source"])
    return run_fit(ViT(ViTConfig(**config["model"])), data, TrainConfig(**config["train"]), Path(out), True)

def run_fit(model: ViT, data: ImageData, cfg: TrainConfig, out: Path, resume: bool) -> Run:
    "Train, print what is being done before and what came of it after, and leave attention.png."
    c, test = model.cfg, 0 if data.test is None else len(data.test)
    print(f"data      {data.name}: {len(data.train):,} training, {len(data.val):,} validation, {test:,} test images of "
          f"{c.img_size}×{c.img_size}, {data.num_classes} classes")
    print(f"model     ViT, {count_params(model):,} parameters: patches of {c.patch_size}, {c.embed_dim} wide, {c.depth} blocks, {c.num_heads} heads")
    print(f"training  {cfg.epochs} epochs of batches of {cfg.batch_size} with {cfg.optimizer} on {pick_device(cfg.device)}, into {out}", flush=True)
    try:
        run = fit(model, data, cfg, out, resume)
    except KeyboardInterrupt:
        print(f"\nstopped; everything so far is in {out}. Go on with:\n  vit_scratch train --resume --out {out}", flush=True)
        raise
    figure = show_attention(model, normalize(data.val.images[:1], data.mean, data.std))
    figure.savefig(out/"attention.png", dpi=110)
    plt.close(figure)
    print(summary(run))
    return run

def summary(run: Run) -> str:
    "What a run did and where its files are, in a few lines."
    seconds, seen = sum(row["seconds"] for row in run.history), run.history[-1]["images_seen"]
    lines = [f"trained     {seen:,} images in {seconds:.0f} s",
             f"validation  {run.val['accuracy']:.2%} (best epoch: {run.best_epoch} of {len(run.history)})",
             f"test        {run.test['accuracy']:.2%} (read once, with the weights of that epoch)" if run.test else "test        no test images",
             f"files       {run.folder}: " + ", ".join(sorted(p.name for p in run.folder.iterdir())),
             f"look inside vit_scratch attend {run.folder} IMAGE…"]
    return "\n" + "\n".join(lines)

def evaluate_run(folder, split: str = "val", device: str = "auto") -> str:
    "A table of loss, accuracy and accuracy per class on one of the run's splits."
    run = load_run(folder, device)
    data = load_data(**run.config["data"]["source"])
    part = {"train": data.train, "val": data.val, "test": data.test}.get(split)
    if part is None:
        raise InputError(f"no split {split!r} in {data.name}; there are train, val{', test' if data.test else ''}")
    scores = evaluate(run.model, part, data)
    lines = [f"{split}: {len(part):,} images, accuracy {scores['accuracy']:.2%}, loss {scores['loss']:.4f}"]
    return "\n".join(lines + [f"  {name:20} {'no images' if a is None else format(a, '7.2%')}" for name, a in zip(run.classes, scores["per_class"])])

def predict_files(folder, paths: list, top: int = 3, device: str = "auto") -> str:
    "One line an image: its likeliest classes with their probabilities."
    run = load_run(folder, device)
    lines = []
    for path, p in zip(paths, run.predict(paths)):
        best = p.topk(min(top, len(run.classes)))
        lines.append(f"{path}: " + ", ".join(f"{run.classes[i]} {v:.1%}" for v, i in zip(best.values.tolist(), best.indices.tolist())))
    return "\n".join(lines)

def attend_files(folder, paths: list, out=None, device: str = "auto") -> list[Path]:
    "Write one attention picture for each image, into `out` or the run folder; returns their paths."
    run, out = load_run(folder, device), Path(folder if out is None else out)
    images = run.images(paths)          # read all before writing any
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for path, image in zip(paths, images):
        figure = show_attention(run.model, image)
        written.append(out / f"attention-{Path(path).stem}.png")
        figure.savefig(written[-1], dpi=130)
        plt.close(figure)
    return written
