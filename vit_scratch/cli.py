import argparse, os, sys
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser

from vit_scratch.core import InputError
from vit_scratch.data import load_data
from vit_scratch.runs import attend_files, evaluate_run, predict_files, resume_run, train_run
from vit_scratch.training import TrainConfig
from vit_scratch.vit import ViTConfig

RECIPES = Path(__file__).parent / "recipes"

class Parser(ArgumentParser):
    "A parser that answers a mistake with one line and exit code 2, and takes no option by half its name."
    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message, ex=None):
        print(f"vit_scratch: {' '.join(str(message).split())}", file=sys.stderr)
        sys.exit(2)

def find_recipe(name: str) -> Path:
    "A recipe that comes with the package, or a YAML file. Raises `InputError` if there is neither."
    for path in (RECIPES/f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    raise InputError(f"no recipe {name!r}: give a YAML file or one of {', '.join(sorted(p.stem for p in RECIPES.glob('*.yaml')))}")

def recipe_for(argv: list[str]) -> Path:
    "The recipe these arguments ask for; without --recipe, `shapes` for shapes and `fast-cpu` for everything else."
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--data", default="shapes")
    first.add_argument("--recipe")
    asked, _ = first.parse_known_args(argv)
    return find_recipe(asked.recipe or ("shapes" if asked.data.startswith("shapes") else "fast-cpu"))

DATA_OPTIONS = {"data": "name", "data_title": "title", "data_root": "root", "images": "n", "val_fraction": "val_fraction", "img_size": "img_size"}

def train_parser(argv: list[str]) -> Parser:
    "Options of `vit_scratch train`; the recipe's values are the defaults, so flags override it."
    p = Parser(description="Train a Vision Transformer.", default_config_files=[str(recipe_for(argv))])
    p.add_argument("--data", default="shapes", help="shapes, shapes-hard, cifar10, cifar100, or a folder of images")
    p.add_argument("--recipe", default=None, type=str | None, help="a recipe's name or a YAML file; flags override it")
    p.add_argument("--out", default=None, type=str | None, help="run folder (default: runs/NAME, numbered)")
    p.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    p.add_argument("--data_title", default="", help="what the result calls the data set")
    p.add_argument("--data_root", default=".data", help="where downloads are kept")
    p.add_argument("--images", default=20000, type=int, help="training images of shapes")
    p.add_argument("--val_fraction", default=0.1, type=float, help="share of the training images held out for validation")
    p.add_class_arguments(ViTConfig, skip={"in_chans", "num_classes"})
    p.add_class_arguments(TrainConfig)
    return p

def build_parser(argv: list[str]) -> Parser:
    "The whole command line."
    parser = Parser(prog="vit_scratch", description="Train a small Vision Transformer and look inside it.")
    commands = parser.add_subcommands()
    commands.add_subcommand("train", train_parser(argv), help="train a model and leave a run folder")
    for name, what in (("evaluate", "accuracy of a run, per class"), ("predict", "classify images"), ("attend", "draw where a run's model looks")):
        p = Parser(description=f"vit_scratch {name}: {what}.")
        p.add_argument("run", type=str, help="a run folder")
        p.add_argument("--device", default="auto", type=str, help="auto, cpu, cuda or mps")
        if name == "evaluate":
            p.add_argument("--split", default="val", type=str, help="val, test or train; the test images are for the end")
        else:
            p.add_argument("images", type=str, nargs="+", help="image files of any size")
        if name == "attend":
            p.add_argument("--out", default=None, type=str | None, help="folder for the pictures (default: the run folder)")
        commands.add_subcommand(name, p, help=what)
    return parser

def train(args, parser: Parser):
    "`vit_scratch train`"
    options = vars(args)
    if args.resume:
        own = {"resume", "out", "data", "recipe"}
        changed = [k for k, v in vars(parser.get_defaults()).items() if k not in own and options.get(k) != v]
        if changed or args.out is None:
            raise InputError(f"--resume goes on with the run's own configuration; drop --{changed[0]}" if changed else "--resume needs --out RUN, the folder of the run")
        return resume_run(args.out)
    pick = lambda cls: {f.name: options[f.name] for f in fields(cls) if f.name in options}
    data_args = {theirs: options[ours] for ours, theirs in DATA_OPTIONS.items()}
    return train_run(pick(ViTConfig), TrainConfig(**pick(TrainConfig)), data_args, args.out)

def run_command(argv: list[str]):
    "Parse the arguments and do what they ask."
    parser = build_parser(argv)
    args = parser.parse_args(argv)
    command = args.subcommand
    if command is None:
        return parser.print_help()
    options = args[command]
    if command == "train":
        return train(options, train_parser(argv))
    if command == "evaluate":
        print(evaluate_run(options.run, options.split, options.device))
    elif command == "predict":
        print(predict_files(options.run, options.images, device=options.device))
    else:
        print("\n".join(str(path) for path in attend_files(options.run, options.images, options.out, options.device)))

def main(argv: list[str] | None = None):
    "The command `vit_scratch`. Wrong input ends with one line on standard error and exit code 2; Ctrl-C with exit code 130."
    try:
        run_command(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        print(f"vit_scratch: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
