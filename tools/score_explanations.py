"""Score the explanations of trained runs and write mean and deviation over seeds:

    python tools/score_explanations.py RUN… [--out RESULT.json]

The runs are those of `vit_scratch train --seed S --pool cls|mean`, on data with masks or boxes. Each run's own scores
are kept in its folder, so that an interrupted call goes on where it was.
"""
import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from vit_scratch.core import environment, usable_cores, write_json
from vit_scratch.runs import load_run, same_data
from vit_scratch.scores import score_explanations


def spread(values: list) -> list[float]:
    v = torch.tensor(values, dtype=torch.float64)
    return [v.mean().item(), v.std().item() if len(v) > 1 else 0.0]


def score(folder: Path, images: int, off_centre: int) -> tuple:
    torch.set_num_threads(1)      # several models at once, a core each
    run, kept = load_run(folder, "cpu"), folder / f"explanations-{images}-{off_centre}.json"
    if not kept.exists():
        write_json(kept, score_explanations(run.model, same_data(run.config), n=images, n_off_centre=off_centre,
                                            seed=10_000 + run.config["train"]["seed"]))
    rows = json.loads(kept.read_text())
    print(folder.name, {r["method"]: round(r["trained"]["pointing_off_centre"], 3) for r in rows}, flush=True)
    return run.config, rows


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("runs", nargs="+", type=Path)
    p.add_argument("--images", type=int, default=256)
    p.add_argument("--off_centre", type=int, default=128)
    p.add_argument("--out", default="results/explanations.json")
    args = p.parse_args()
    scored, trained = {}, []
    with ProcessPoolExecutor(usable_cores(), get_context("spawn")) as pool:
        results = list(pool.map(score, args.runs, [args.images] * len(args.runs), [args.off_centre] * len(args.runs)))
    for folder, (config, rows) in zip(args.runs, results):
        scored.setdefault(config["model"]["pool"], []).append(rows)
        result = json.loads((folder / "result.json").read_text())
        trained.append({"pool": config["model"]["pool"], "seed": config["train"]["seed"],
                        "val_accuracy": result["val"]["accuracy"], "passes": result["passes"],
                        "parameters": result["parameters"], "commit": result["environment"]["commit"]})
    table = []
    for pool, seeds in sorted(scored.items()):
        for same in zip(*seeds):
            table.append({"pool": pool, "method": same[0]["method"],
                          "same_as_untrained": spread([r["same_as_untrained"] for r in same]),
                          **{which: {k: spread([r[which][k] for r in same]) for k in same[0][which]}
                             for which in ("trained", "untrained")}})
    write_json(args.out, {"what": "[mean, deviation] over seeds; test images the model gets right",
                          "dataset": config["data"]["name"], "seeds": len(seeds), "images": args.images,
                          "off_centre_images": args.off_centre,
                          "rows": table, "runs": trained, "config": config["model"], "environment": environment()})
