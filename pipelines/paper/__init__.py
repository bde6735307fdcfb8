"""The tables of the paper (arXiv 2403.01214): their rows as runs, their numbers beside ours."""
