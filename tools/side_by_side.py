"""Several seeds of a recipe side by side on one device, for as many passes as fit into the time there is:

    python tools/side_by_side.py five-minutes-gpu --data .data/cifar10 --data_title "cifar10 (JPEG copy)" \\
        --minutes 5 --out runs/five

The first passes are measured, while the rate still rises and is the same for any number of passes; then the schedule
gets its length. Writes OUT/0, OUT/1 …, each a finished run without checkpoints in between. The recipe needs a
warmup of `DECIDE` epochs.
"""
import argparse
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import torch
import torch.multiprocessing as mp
import yaml

from vit_scratch import training
from vit_scratch.checkpoint import holds_run, new_run_folder, write_config
from vit_scratch.core import InputError, package_folder, set_seed
from vit_scratch.data import load_data
from vit_scratch.settings import TrainConfig
from vit_scratch.starts import whiten_start
from vit_scratch.trainer import Trainer
from vit_scratch.vit import ViT, ViTConfig

DECIDE = 5           # epochs after which the number of passes is settled
MOST = 100_000       # epochs of a schedule that has no length yet


class Quiet:
    "A progress bar that shows nothing."
    def batches(self, todo, n):
        return todo

    def comment(self, text):
        pass


# a barrier, and a number that all processes share
def one_seed(seed: int, recipe: dict, data, out: Path, deadline: float, together, passes):
    "One run. Where it fails, the others do not wait for it."
    try:
        train(seed, recipe, data, out, deadline, together, passes)
    except threading.BrokenBarrierError:      # another one has failed, and says why
        sys.exit(1)
    except BaseException:
        together.abort()
        raise


def train(seed: int, recipe: dict, data, out: Path, deadline: float, together, passes):
    pick = lambda cls: {f.name: recipe[f.name] for f in fields(cls) if f.name in recipe and f.name != "epochs"}
    set_seed(seed)
    model = ViT(ViTConfig(**{**pick(ViTConfig), "img_size": data.img_size, "in_chans": data.in_chans,
                             "num_classes": data.num_classes}))
    cfg = TrainConfig(**{**pick(TrainConfig), "seed": seed, "epochs": MOST})
    if cfg.whiten:
        whiten_start(model, data)
    trainer, folder, start = Trainer(model, data, cfg), new_run_folder(out/str(seed)), 0.0
    while trainer.epoch < trainer.cfg.epochs:
        trainer.train_epoch(Quiet(), threading.Event())
        row = trainer.finish_epoch()
        if trainer.epoch == 1:           # compiled and recorded: from here on all seeds run at the same time
            together.wait()
            start = time.time()
        if trainer.epoch == DECIDE:
            if seed == 0:
                each = (time.time() - start) / (DECIDE - 1)
                # a little in hand
                passes.value = max(DECIDE + 1, DECIDE + int(0.97 * (deadline - time.time()) / each))
                print(f"{each:.2f} s a pass of all, {passes.value} passes", flush=True)
            together.wait()
            trainer.cfg = replace(trainer.cfg, epochs=passes.value)
        if seed == 0 and trainer.epoch % 10 == 0:
            print(f"epoch {trainer.epoch}: training loss {row['train_loss']:.3f}, validation {row['val_accuracy']:.2%}",
                  flush=True)
    write_config(folder, trainer.model, trainer.cfg, data)
    training.save_progress = lambda *args: None
    run = training.finish(trainer, folder, test=True)
    print(f"seed {seed}: {trainer.epoch} epochs, epoch {run.best_epoch} kept, validation {run.val['accuracy']:.2%}, "
          f"test {run.test['accuracy']:.2%}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a name, or a YAML file")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data_title", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5, help="until the last epoch ends, compiling included")
    parser.add_argument("--out", type=Path, default=Path("runs/side-by-side"))
    parser.add_argument("--images", type=int, default=0, help="so many training images, for a dry run")
    args = parser.parse_args()
    deadline, path = time.time() + 60 * args.minutes, Path(args.recipe)
    try:
        path = path if path.suffix == ".yaml" else package_folder()/"recipes"/f"{args.recipe}.yaml"
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        if recipe.get("warmup_epochs", 0) < DECIDE:
            raise InputError(f"{path} has a warmup of {recipe.get('warmup_epochs', 0)} epochs; it must be at least "
                             f"{DECIDE}, for the number of passes is not known before")
        if taken := [args.out/str(seed) for seed in range(args.seeds) if holds_run(args.out/str(seed))]:
            raise InputError(f"{taken[0]} already holds a run; give another folder with --out")
        data = load_data(args.data, title=args.data_title, val_fraction=recipe.get("val_fraction", 0.1))
    except (InputError, OSError) as error:
        sys.exit(f"side_by_side: {error}")
    if args.images:
        data = replace(data, train=data.train[torch.randperm(len(data.train))[:args.images]], val=data.val[:200],
                       test=data.test[:200])
    context = mp.get_context("spawn")
    shared = context.Barrier(args.seeds, timeout=600), context.Value("i", 0)
    processes = [context.Process(target=one_seed, args=(seed, recipe, data, args.out, deadline, *shared))
                 for seed in range(args.seeds)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in processes))
