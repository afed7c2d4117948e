import csv, io, json, os, pickle
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import yaml
from matplotlib.figure import Figure
from torch import nn

from vit_scratch.core import InputError, environment, write_json

def save_whole(path,       # the file to write
               obj: dict): # tensors, numbers, strings, lists, dicts
    "`torch.save` so that the file is the old one or the new one, never half: write beside it, flush to disk, rename."
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as f:
        torch.save(obj, f)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)

def load_checkpoint(path) -> dict:
    "Read a checkpoint onto the CPU, tensors and plain values only. Raises `InputError` for a missing, broken or foreign file."
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint {path}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a whole checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or not {"model", "history", "epoch", "batch"} <= state.keys():
        raise InputError(f"{path} was not written by vit_scratch: a checkpoint holds model, history, epoch and batch")
    return state

def load_weights(model: nn.Module,
                 state: dict[str, torch.Tensor]):   # a state dict
    "`load_state_dict(strict=True)` whose error names the first tensor that does not fit. Raises `InputError`."
    own = model.state_dict()
    if missing := [k for k in own if k not in state]:
        raise InputError(f"the checkpoint lacks {missing[0]} and {len(missing) - 1} more of the model's tensors")
    if extra := [k for k in state if k not in own]:
        raise InputError(f"the checkpoint has {extra[0]} and {len(extra) - 1} more tensors that the model lacks")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise InputError(f"the checkpoint's {key} is {tuple(value.shape)}, the model's is {tuple(own[key].shape)}")
    model.load_state_dict(state)

def new_run_folder(out) -> Path:
    "Make the folder. Raises `InputError` if it already holds a run."
    out = Path(out)
    if (out/"config.yaml").exists():
        raise InputError(f"{out} already holds a run; go on with it (--resume) or give another folder (--out)")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the run folder {out}: {error.strerror}") from None
    return out

def write_config(out: Path, model: nn.Module, cfg, data):
    "config.yaml: how the data were loaded, the model's and the training's configuration."
    config = {"data": {"name": data.name, "classes": list(data.classes), "mean": list(data.mean), "std": list(data.std), "source": data.source},
              "model": asdict(model.cfg) if hasattr(model, "cfg") else None, "train": asdict(cfg)}
    (out/"config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")

def write_history(out: Path, history: list[dict]):
    "history.jsonl and history.csv: one line an epoch, written anew so that a resumed run leaves no line twice."
    table = io.StringIO()
    writer = csv.DictWriter(table, history[0])
    writer.writeheader()
    writer.writerows(history)
    for name, text in (("history.csv", table.getvalue()), ("history.jsonl", "".join(json.dumps(row) + "\n" for row in history))):
        (out/f"{name}.tmp").write_text(text, encoding="utf-8")
        (out/f"{name}.tmp").replace(out/name)

def plot_history(history: list[dict],
                 ax=None,            # two axes to draw on instead of a new figure
                ) -> Figure:
    "Loss and validation accuracy against epochs."
    ax = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")[1] if ax is None else ax
    epochs = [row["epoch"] for row in history]
    for key, style in (("train_loss", "--"), ("val_loss", "-")):
        ax[0].plot(epochs, [row[key] for row in history], style, marker=".", label=key.replace("_", " "))
    ax[0].legend()
    ax[1].plot(epochs, [100 * row["val_accuracy"] for row in history], marker=".", color="C1")
    ax[0].set(xlabel="epoch", ylabel="cross-entropy (nats)")
    ax[1].set(xlabel="epoch", ylabel="validation accuracy (%)")
    ax[1].grid(alpha=0.3)
    return ax[0].figure

def write_result(out: Path, model: nn.Module, cfg, data, history: list[dict], best_epoch: int, val: dict, test: dict | None):
    "result.json: everything a number needs to be believed; and curves.png."
    write_json(out/"result.json", {
        "dataset": data.name, "config": {"model": asdict(model.cfg) if hasattr(model, "cfg") else None, "train": asdict(cfg)}, "seed": cfg.seed,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test) if data.test else 0}, "classes": list(data.classes),
        "epoch": best_epoch, "val": val, "test": test, "images_seen": history[-1]["images_seen"], "passes": history[-1]["images_seen"] / len(data.train),
        "seconds": round(sum(row["seconds"] for row in history), 1), "environment": environment(), "history": history})
    figure = plot_history(history)
    figure.savefig(out/"curves.png", dpi=110)
    plt.close(figure)
