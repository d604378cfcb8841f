"""Jobs that do more than one turn takes before there is a step to show."""

from typing import Generic, TypeVar

T = TypeVar("T")


class InTurns(Generic[T]):
    """A job whose `turn` returns None where so much was done that others should come, and no step was taken."""

    def turn(self) -> T | None:
        """The next step, or None; StopIteration at the end."""
        raise NotImplementedError

    def __next__(self) -> T:
        while (step := self.turn()) is None:
            pass
        return step
