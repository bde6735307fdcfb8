"""Option and argument types that the subcommands share; every path may begin with `~`."""

from pathlib import Path

from boxdepth.trainer.config.overrides import ConfigError


def expanded(text: str | Path) -> Path:
    """A path as the shell would have given it: `--store=~/x` reaches us with its `~`."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:  # no such user: a folder may be called so
        return path


def refuse_unwritable(path: Path, *, overwrite: bool) -> None:
    """Notice before the work, not after it, that a result can't be written.

    Raises:
        ConfigError: the file is there already, is a folder, or lies below a file.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already; --overwrite replaces it")
    make_folder(path.parent)


def make_folder(path: Path) -> None:
    """A folder, with those above it.

    Raises:
        ConfigError: there is a file of that name, or in the way to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{path}: can't be a folder, for {error.filename or path} is a file or below one"
        ) from error
