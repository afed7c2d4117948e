"Packaging, driven by settings.ini, where every name and version stands once."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
c = config["DEFAULT"]
extras = {name: c[f"{name}_requirements"].split() for name in ("notebooks", "log", "bench", "export", "dev")}

setup(
    name=c["lib_name"], version=c["version"], description=c["description"], author=c["author"], author_email=c["author_email"],
    license="MIT", license_files=["LICENSE"], url=c["git_url"], keywords=c["keywords"],
    project_urls={"Documentation": c["doc_host"] + c["doc_baseurl"], "Source": c["git_url"]},
    long_description=Path("README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    packages=find_packages(include=["vit_scratch", "vit_scratch.*"]), package_data={"vit_scratch": ["recipes/*.yaml", "static/*.html", "models/*/*"]},
    python_requires=f">={c['min_python']}", install_requires=c["requirements"].split(), extras_require=extras,
    entry_points={"console_scripts": c["console_scripts"].split(), "nbdev": [f"{c['lib_name']}={c['lib_name']}._modidx:d"]},
    classifiers=["Programming Language :: Python :: 3", "Topic :: Scientific/Engineering :: Artificial Intelligence"],
    zip_safe=False)
