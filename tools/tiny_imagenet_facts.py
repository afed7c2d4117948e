"""Look at every file of Tiny ImageNet, where ROOT/tiny-imagenet-200 is the unpacked archive:

    python tools/tiny_imagenet_facts.py [ROOT [RESULT.json]]
"""
import hashlib
import sys

from PIL import Image

from vit_scratch.core import environment, write_json
from vit_scratch.data import load_data

if __name__ == "__main__":
    data = load_data("tiny-imagenet", root=sys.argv[1] if len(sys.argv) > 1 else ".data", memory_share=0)
    parts = {"train": [data.train, data.val], "test": [data.test]}       # our validation images are cut off train/
    labels, grey, both = {}, {}, []
    for part, splits in parts.items():
        grey[part] = 0
        for split in splits:
            for path, label in zip(split.paths, split.labels.tolist()):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                with Image.open(path) as image:
                    grey[part] += image.mode == "L"
                if part == "train":
                    labels[digest] = label
                elif digest in labels:
                    both.append(labels[digest] != label)
    sizes = {part: sum(map(len, splits)) for part, splits in parts.items()}
    facts = {"train": sizes["train"], "test": sizes["test"], "grey_train": grey["train"], "grey_test": grey["test"],
             "test_images_in_train": len(both), "of_these_with_another_label": sum(both), "environment": environment()}
    print(facts)
    write_json(sys.argv[2] if len(sys.argv) > 2 else "results/tiny-imagenet-facts.json", facts)
