"""What may be passed on, of messages, bytes or seconds: so much at once, and so much per second after that."""

import asyncio

from decoding.limits import Rate


class Bucket:
    """What may still be passed on: so much at once, and it fills again."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left, self._at = float(rate.at_once), now()

    def wait(self, count: float = 1) -> float:
        """Take so many; seconds until they may go. Who comes later waits longer: first come, first served."""
        self._left = self._filled() - count
        self._at = now()
        return max(0.0, -self._left / self._rate.per_second)

    def fine(self, seconds: float) -> None:
        """Take what is passed on in so many; however often, nobody waits for longer than that."""
        price = self._rate.per_second * seconds
        self._left, self._at = max(self._filled() - price, -price), now()

    @property
    def full(self) -> bool:
        return self._filled() >= self._rate.at_once

    def _filled(self) -> float:
        return min(self._rate.at_once, self._left + self._rate.per_second * (now() - self._at))


def now() -> float:
    """Seconds of the event loop."""
    return asyncio.get_running_loop().time()
