"""Write README.md from nbs/index.ipynb.   python tools/readme.py

Hidden cells (`#| hide`) go, cells with `#| echo: false` lose their code, pictures go to README_files/.
"""
import re
import shutil
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = """{% extends 'markdown/index.md.j2' %}{% block input %}
{%- if 'echo: false' not in cell.source %}{{ super() }}{% endif %}{% endblock input %}"""


def settings() -> dict:
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def render() -> tuple[str, dict[str, bytes]]:
    "The text of README.md and its pictures."
    book = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    book.cells = [c for c in book.cells if not (c.cell_type == "code" and c.source.startswith("#| hide"))]
    alt_texts = iter(re.findall(r'#\| fig-alt: "(.*)"', "\n".join(c.source for c in book.cells)))
    exporter = MarkdownExporter(raw_template=TEMPLATE)
    text, resources = exporter.from_notebook_node(book, {"unique_key": "picture", "output_files_dir": "README_files"})
    text = re.sub(r"\s*!\[png\]", lambda _: f"\n\n![{next(alt_texts)}]", text)
    site = settings()["doc_host"] + settings()["doc_baseurl"]
    # nbdev's pages drop the number
    text = re.sub(r"\]\((solutions/)?(?:\d\w*?_)?(\w+)\.ipynb\)", rf"]({site}/\1\2.html)", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return text, {Path(name).name: data for name, data in resources.get("outputs", {}).items()}


def main():
    text, pictures = render()
    (ROOT / "README.md").write_text(text, encoding="utf-8")
    folder = ROOT / "README_files"
    shutil.rmtree(folder, ignore_errors=True)
    if pictures:
        folder.mkdir()
    for name, data in pictures.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
