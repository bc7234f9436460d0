"""A stream of bytes, taken in the sizes that the caller works in."""

from collections.abc import Iterable

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.pieces import Buffer


class Reader:
    """Takes any number of bytes at a time from a stream in pieces of any size; copies only what crosses an edge."""

    def __init__(self, pieces: Iterable[Buffer], what: str) -> None:
        """`what` names the stream in errors."""
        self._pieces, self._what = iter(pieces), what
        self._rest = memoryview(b"")
        self._crossing = bytearray()

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, to be used before the next call.

        Raises LocalProtocolError if the stream ends before: sizes were checked when it was accepted.
        """
        if not self._rest:
            self._next_piece()
        if len(self._rest) < size:
            return self._assemble(size)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def finish(self) -> None:
        """Raise LocalProtocolError unless the stream ends here."""
        if self._next_piece():
            raise LocalProtocolError(f"{self._what} goes on after its last byte: was its size checked?")

    def _assemble(self, size: int) -> memoryview:
        if len(self._crossing) < size:
            self._crossing = bytearray(size)
        taken, held = memoryview(self._crossing)[:size], 0
        while held < size:
            if not self._next_piece():
                raise LocalProtocolError(
                    f"{self._what} ends {size - held} bytes before it should: was its size checked?"
                )
            part = self._rest[: size - held]
            taken[held : held + len(part)] = part
            held, self._rest = held + len(part), self._rest[len(part) :]
        return taken

    def _next_piece(self) -> bool:
        """Move on to a piece with bytes left; False at the end of the stream."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._rest = memoryview(piece).cast("B")
        return True
