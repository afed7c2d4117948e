"python -m vit_scratch"
from vit_scratch.cli import main

if __name__ == "__main__":
    main()
