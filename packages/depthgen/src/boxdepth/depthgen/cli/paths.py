"""Paths as people type them: ``--store=~/x`` reaches us with the tilde, whatever the shell."""

from pathlib import Path

import typer


def user_path(text: str) -> Path:
    """``text`` as a path, with ``~`` and ``~name`` at its start turned into the home folder.

    Raises:
        BadParameter: There is no such user.
    """
    return Path(user_text(text))


def user_text(text: str) -> str:
    """The same for what may be a path: a URL, a name or a hub id stays as it is.

    Raises:
        BadParameter: There is no such user.
    """
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError as error:
        raise typer.BadParameter(
            f"{text}: {error}; write ./{text} for a file of that name"
        ) from error
