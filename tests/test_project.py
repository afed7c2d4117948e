"Laws about the project itself: one identity, notebooks that are clean, a README and a package that match them."
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import readme  # noqa: E402

SETTINGS = readme.settings()
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb")
                   if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts))
IDENTITY = f"{SETTINGS['user']}/{SETTINGS['repo']}"


def cells(path: Path, kind: str | None = None) -> list[str]:
    return ["".join(c["source"]) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if kind in (None, c["cell_type"])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_agree_with_settings(path):
    text = "\n".join(cells(path))
    for owner_and_repo in re.findall(r"(?:github\.com|colab\.research\.google\.com/github)/([\w.-]+/vit_scratch)\b",
                                     text):
        assert owner_and_repo == IDENTITY
    for branch in re.findall(rf"{IDENTITY}(?:/blob/|@)([\w.-]+)", text):
        assert branch == SETTINGS["branch"]
    if path.stem[0].isdigit() and path.parent.name == "nbs":
        assert f"colab.research.google.com/github/{IDENTITY}/blob/{SETTINGS['branch']}/nbs/{path.name}" in text
        url = SETTINGS["git_url"] % SETTINGS if "%" in SETTINGS["git_url"] else SETTINGS["git_url"]
        assert f"pip install -q timm git+{url}@{SETTINGS['branch']}" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_internal_links_exist(path):
    for target in re.findall(r"\]\(([\w/]+\.ipynb)\)", "\n".join(cells(path, "markdown"))):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_pictures_have_alt_text_and_the_notebook_is_small(path):
    assert path.stat().st_size < 500 * 1024
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if any("image/png" in o.get("data", {}) for o in cell.get("outputs", [])):
            assert "#| fig-alt:" in "".join(cell["source"]), "".join(cell["source"])[:80]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
# many run in one process: the later ones would fight over the cores, at a third of the speed
def test_no_notebook_leaves_torch_another_number_of_threads(path):
    told = re.findall(r"set_num_threads\((\w+)\)", "\n".join(cells(path, "code")))
    assert not told or told[-1] in ("cores", "threads"), (
        f"the last number of threads is {told[-1]}, not what it was at first")


def test_site_agrees_with_settings():
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]
    assert site["repo-url"] == SETTINGS["git_url"] and site["repo-branch"] == SETTINGS["branch"]
    assert site["site-url"] == SETTINGS["doc_host"] + SETTINGS["doc_baseurl"]
    listed = set(re.findall(r"[\w/]+\.ipynb", str(site["sidebar"])))
    assert listed == {str(p.relative_to(ROOT / "nbs")) for p in NOTEBOOKS}


def test_no_two_pages_share_an_address():
    # as nbdev names them
    pages = [str(p.relative_to(ROOT / "nbs").with_name(re.sub(r"^\d+[a-zA-Z0-9]*_", "", p.name))) for p in NOTEBOOKS]
    assert len(set(pages)) == len(pages), [page for page in pages if pages.count(page) > 1]


def test_readme_is_the_index():
    text, pictures = readme.render()
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, "run: python tools/readme.py"
    for name, data in pictures.items():
        assert (ROOT / "README_files" / name).read_bytes() == data


def test_results_say_where_they_come_from():
    for path in (ROOT / "results").rglob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == "published":      # other people's
            assert all(row["name"] and row["measured_on"] for row in result["rows"])
            continue
        settings = "settings" if "rung" in result else "config"
        of_a_run = ("dataset", settings, "seed", "seconds", "images_seen", "history") if "history" in result else ()
        for run in result["runs"] if path.parent.name == "speedrun" else [result]:
            for key in ("environment", *of_a_run):
                assert key in run, f"{path.name} lacks {key}"
            commits = ([run["environment"].get("commit")] if "commit" in run["environment"]
                       else [row["commit"] for row in run["rows"]])
            assert all(commits), f"{path.name} does not say which commit wrote it"


def texts(value) -> list[str]:
    "All strings in what a JSON or YAML file holds."
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for part in value for text in texts(part)] if isinstance(value, list) else []


def test_shipped_models_are_small_and_know_no_machine():
    models = {config.parent.name: config.parent for config in (ROOT / "vit_scratch" / "models").glob("*/config.yaml")}
    assert {"demo", "vit-cifar10"} <= set(models)
    for name, folder in models.items():
        assert (folder / "model.safetensors").stat().st_size < 6e6, name
        for path in [*folder.glob("*.yaml"), *folder.glob("*.json")]:
            for text in texts(yaml.safe_load(path.read_text(encoding="utf-8"))):
                assert not re.match(r"[/\\~]|[A-Za-z]:[/\\]", text), (
                    f"{path} holds a path of somebody's machine: {text}")
        assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]["source"]["root"] in (
            ".data", "")


def test_the_shipped_result_is_the_one_in_results():
    shipped, kept = (json.loads((ROOT / path).read_text(encoding="utf-8"))
                     for path in ("vit_scratch/models/vit-cifar10/result.json", "results/cifar10-best-gpu.json"))
    assert shipped == kept


def test_a_folder_named_like_a_built_in_set_is_not_taken_for_it():
    import ship      # tools/ship.py

    source = {"name": "/somewhere/cifar10", "root": "/somewhere/.data", "seed": 3}
    assert ship.without_paths(source, "cifar10") == {"name": "cifar10 (a folder)", "root": ".data", "seed": 3}
    assert ship.without_paths(source, "cifar10 (JPEG copy)")["name"] == "cifar10 (JPEG copy)"
    assert ship.without_paths({**source, "name": "shapes"}, "my shapes")["name"] == "shapes"


def test_recipes_and_the_results_named_after_them_agree():
    """What a recipe says today is what the runs in results/ were made with,
    so that the table in the README is about the recipe."""
    for name in ("fast-cpu", "fast-cpu-original", "fast-cpu-original-seed1", "fast-cpu-original-seed2", "plain-cpu",
                 "two-hours-cpu", "two-hours-cpu-original", "five-minutes-gpu", "best-gpu"):
        recipe = yaml.safe_load(
            (ROOT / "vit_scratch" / "recipes" / f"{name.split('-original')[0]}.yaml").read_text(encoding="utf-8"))
        config = json.loads((ROOT / "results" / f"cifar10-{name}.json").read_text(encoding="utf-8"))["config"]
        made = {**config["model"], **config["train"]}
        differs = {key: (value, made[key]) for key, value in recipe.items() if key in made and made[key] != value}
        assert not differs, (name, differs)


# "" are dot files, LICENSE and .ci/run
KINDS = {"", ".html", ".ini", ".ipynb", ".json", ".md", ".png", ".py", ".safetensors", ".toml", ".yaml", ".yml"}


def test_nothing_was_committed_by_accident():      # a downloaded wheel once was, by `git add -A`
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git here")
    strange = [name for name in tracked.stdout.splitlines() if Path(name).suffix not in KINDS]
    assert not strange, f"files of no kind that belongs here: {strange}"


def test_modules_stay_small():
    for path in (ROOT / "vit_scratch").glob("*.py"):
        if not path.name.startswith("_"):
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            assert len(lines) <= 265, f"{path.name} has {len(lines)} lines"


def code_of(path: Path) -> list[str]:
    "The code in a file, or in each cell of a notebook but for those whose text is shown as it is."
    if path.suffix == ".py":
        return [path.read_text(encoding="utf-8")]
    return [cell for cell in cells(path, "code") if 'Markdown(f"""' not in cell]


def test_lines_fit_a_screen():
    """120 characters; what a comment says of a parameter, or of what a function returns, may take 150. Not counted:
    what Quarto reads (`#|`), and the text of the model card."""
    parameter = re.compile(r"\s*((def \w+\((self, )?)?\*{0,2}\w+:|\) ->) .*#")
    others = [path for folder in ("tests", "tools") for path in (ROOT / folder).glob("*.py") if path.name != "ship.py"]
    for path in [*NOTEBOOKS, *others]:
        for line in "\n".join(code_of(path)).splitlines():
            most = 150 if parameter.match(line) else 120
            assert len(line) <= most or line.startswith("#|"), f"{path.name}: {line}"


def test_export_changes_nothing(tmp_path):
    "Exporting the notebooks into a copy gives the package that is here."
    for name in ("nbs", "vit_scratch", "settings.ini", "setup.py", "README.md"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path)], check=True)
    subprocess.run([sys.executable, "-c",
                    "from nbdev.export import nb_export; from nbdev.doclinks import nbdev_export; nbdev_export()"],
                   cwd=tmp_path, check=True, capture_output=True)
    for path in (ROOT / "vit_scratch").glob("*.py"):
        assert (tmp_path / "vit_scratch" / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), (
            f"{path.name}: run nbdev_export")
