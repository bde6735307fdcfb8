"""An image file in an object store, where a ``Path`` would be one on this machine."""

from dataclasses import dataclass

from boxdepth.depthgen.store.errors import DataError
from boxdepth.depthgen.store.location import Location, ObjectMissingError


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One object: what is needed of a file, by the names that ``Path`` has for it.

    Attributes:
        folder: Where it lies; holds no connection, so that a record may be pickled.
        name: Its name in ``folder``.
        nbytes: Its size when the folder was listed.
    """

    folder: Location
    name: str
    nbytes: int

    def read_bytes(self) -> bytes:
        """The whole file, by one request.

        Raises:
            DataError: It is not there any more.
            EnvironmentFailure: The network fails, or access is denied.
        """
        try:
            return self.folder.read(self.name)
        except ObjectMissingError as error:
            raise DataError(f"{self}: not there any more; bring it back, or read anew") from error

    def read_head(self, nbytes: int) -> bytes:
        """Its first ``nbytes`` bytes, or all of it.

        Raises:
            DataError, EnvironmentFailure: As ``read_bytes`` has it.
        """
        if not self.nbytes:
            return b""
        try:
            return self.folder.read_range(self.name, start=0, nbytes=min(nbytes, self.nbytes))
        except ObjectMissingError as error:
            raise DataError(f"{self}: not there any more; bring it back, or read anew") from error

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"
