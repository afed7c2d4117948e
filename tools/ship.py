"""Put a finished run's model into the package:   python tools/ship.py runs/cifar10 vit-cifar10

The weights are rounded to bf16; what that changes on the validation images stands on the model card. The data of
the run must be where they were.
"""
import argparse
import json
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from vit_scratch.core import InputError, package_folder, write_json, write_whole
from vit_scratch.data import BUILT_IN
from vit_scratch.evaluation import predict_logits
from vit_scratch.runs import load_run, run_folder, same_data
from vit_scratch.shapes import make_shapes
from vit_scratch.splits import normalize

LARGEST = 6_000_000      # bytes of weights
CARD = """---
license: mit
library_name: vit_scratch
pipeline_tag: image-classification
---
# {name}

A plain Vision Transformer for the {classes} classes of {dataset}: {parameters:,} parameters, {patch}×{patch} patches of {size}×{size} images, {width} wide, {depth} blocks, {heads} heads. Weights have timm's names, in bf16, {megabytes:.1f} MB.

    vit_scratch predict {name} picture.jpg
    vit_scratch explore {name} picture.jpg

    from vit_scratch import ViT, load_run
    model = ViT.from_pretrained("{name}")       # the model; load_run("{name}") also knows its classes and how to read a picture file

| | |
|---|---|
| test images, read once by the run itself, in the arithmetic of its training | {test} |
| validation images, in 32 bits, before rounding | {before:.2%} of {val_images:,} |
| validation images, in 32 bits, as shipped | {after:.2%}; {changed} of {val_images:,} answers differ |
| training | {images_seen:,} images ({passes:.0f} passes over {train_images:,}) in {minutes:.0f} minutes on {hardware}, seed {seed} |
| code | commit {commit}, torch {torch} |

Classes: {names}.

**What it is not for.** It has seen {dataset} and nothing else. Any picture is cut to its central square and shrunk to {size}×{size} pixels, and gets one of the {classes} names, with a probability, whatever it shows. {note} It was made to be looked into, and to be compared with.

How it was trained stands in config.yaml and result.json, next to this file.
"""


def card(name: str, result: dict, megabytes: float, before: float, after: float, changed: int, note: str) -> str:
    """The text of the model card: every number comes from the run's result,
    or from the comparison before and after rounding."""
    model, train = (result["config"][key] for key in ("model", "train"))
    env, images = result["environment"], result["images"]
    return CARD.format(
        note=note, name=name, classes=len(result["classes"]), names=", ".join(result["classes"]),
        dataset=result["dataset"], parameters=result["parameters"], patch=model["patch_size"],
        size=model["img_size"], width=model["embed_dim"], depth=model["depth"], heads=model["num_heads"],
        megabytes=megabytes,
        test=f"{result['test']['accuracy']:.2%} of {images['test']:,}" if result["test"] else "none", before=before,
        val_images=images["val"], after=after,
        changed=changed, images_seen=result["images_seen"], passes=result["passes"], train_images=images["train"],
        minutes=result["seconds"] / 60,
        hardware=env["processor"] if train["device"] == "cpu" or env["gpu"] is None else env["gpu"],
        seed=result["seed"], commit=env["commit"], torch=env["torch"])


def answers(run, images, data) -> torch.Tensor:
    "The classes that a model sees in images, in 32 bits."
    return predict_logits(run.model, images, data).argmax(-1)


def without_paths(source: dict, dataset: str) -> dict:
    "Where the images were, without this machine's folders; a folder's name is written so that no built-in set has it."
    name = source["name"] if source["name"] in BUILT_IN else f"{dataset} (a folder)" if dataset in BUILT_IN else dataset
    return {**source, "name": name, "root": ".data"}


def ship(folder: Path, name: str, note: str = "One run, one seed.") -> Path:
    "Write the model's folder, when all that belongs into it is there; returns it."
    folder = run_folder(folder)
    run, result = load_run(folder, "cpu"), json.loads((folder/"result.json").read_text(encoding="utf-8"))
    weights = {key: tensor.bfloat16() for key, tensor in run.model.state_dict().items()}
    if (size := sum(2 * tensor.numel() for tensor in weights.values())) > LARGEST:
        raise InputError(f"{name} would take {size:,} bytes; the package has room for {LARGEST:,}")
    data = same_data(run.config)
    drawn = normalize(make_shapes(8, seed=7, size=run.model.cfg.img_size)[0], run.mean, run.std)
    with torch.no_grad():
        # what the run says about pictures that everybody can draw: the shipped model must say the same
        logits = run.model(drawn).tolist()
    size_of_images = run.model.cfg.img_size
    # trained on crops
    images = data.val.images if data.img_size == size_of_images else data.val.centre(size_of_images).images
    before = answers(run, images, data)
    run.model.load_state_dict(weights)          # rounded
    after = answers(run, images, data)
    right = [(found == data.val.labels).double().mean().item() for found in (before, after)]
    text = card(name, result, size / 1e6, *right, (before != after).sum().item(), note)
    config, out = run.config, package_folder()/"models"/name
    config["data"]["source"] = without_paths(config["data"]["source"], result["dataset"])
    config["train"]["log_dir"] = result["config"]["train"]["log_dir"] = ""
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out/"model.safetensors")
    write_json(out/"result.json", result)
    write_json(out/"answers.json", {"logits": logits})
    write_whole(out/"README.md", text.encode())
    # last: with it, the folder counts
    write_whole(out/"config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--note", default="One run, one seed.",
                        help="a sentence for the card: how the run was chosen, what it shared its machine with")
    args = parser.parse_args()
    try:
        print(ship(args.run, args.name, args.note))
    except InputError as error:
        sys.exit(f"ship: {error}")
