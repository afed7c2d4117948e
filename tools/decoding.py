"""Threads beside worker processes for many small files, in turns; writes results/decoding.json:

    python tools/decoding.py FOLDER
"""
import sys
import time
from pathlib import Path

import vit_scratch.files as files
from vit_scratch.core import environment, write_json

if __name__ == "__main__":
    paths = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.suffix in files.IMAGE_SUFFIXES)
    seconds, ways = {"processes": [], "threads": []}, {"processes": 1, "threads": len(paths) + 1}
    for _ in range(2):
        for way, files.MANY in ways.items():
            start = time.perf_counter()
            files.read_images(paths, 32)
            seconds[way].append(round(time.perf_counter() - start, 1))
            print(way, seconds[way][-1], flush=True)
    write_json("results/decoding.json",
               {"what": "seconds to read and decode all files, at 32 pixels", "images": len(paths), "seconds": seconds,
                "environment": environment()})
