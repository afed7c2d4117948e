"""How many test images models get right on several copies of a data set:

    python tools/copies.py RESULT.json --models runs/a runs/b --data .data/cifar10 .data/cifar10-png \\
        --titles "JPEG copy" "PNG copy"

In 32 bits; each model normalises by what it was trained with. The copies must hold the same test images.
"""
import argparse
import json
from dataclasses import replace
from pathlib import Path

from vit_scratch.core import environment, write_json
from vit_scratch.data import load_data
from vit_scratch.evaluation import evaluate
from vit_scratch.runs import load_run, run_folder

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    for name in ("models", "data", "titles"):
        parser.add_argument(f"--{name}", nargs="+", required=True)
    args = parser.parse_args()
    sets, rows = {title: load_data(path) for title, path in zip(args.titles, args.data)}, []
    for name in args.models:
        run = load_run(name, "cpu")
        result = json.loads((run_folder(Path(name))/"result.json").read_text(encoding="utf-8"))
        row = {"trained_on": result["dataset"], "passes": result["passes"], "commit": result["environment"]["commit"]}
        for title, data in sets.items():
            data = replace(data, mean=run.mean, std=run.std)
            row[title] = evaluate(run.model, data.test, data)["accuracy"]
        rows.append(row)
        print(row, flush=True)
    write_json(args.out, {"what": "share of the 10,000 test images, in 32 bits", "rows": rows,
                          "environment": environment()})
