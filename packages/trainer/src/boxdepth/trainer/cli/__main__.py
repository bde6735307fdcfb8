"""`python -m boxdepth.trainer.cli`, for torchrun."""

from boxdepth.trainer.cli.main import main

if __name__ == "__main__":
    main()
