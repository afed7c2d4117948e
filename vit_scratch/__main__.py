from vit_scratch.cli import main

main()
