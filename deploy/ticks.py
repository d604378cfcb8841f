"""Which ticks of a page's timers are worth passing on.

A fragment that follows a run is asked for by the browser every so often, whether the last time has been answered or not. Where
many visitors wait for one another such ticks pile up in front of a click, and each would have its script run, or wait a second for
one that no longer runs, before the click is passed on. A tick that follows closely on the last one says nothing new, and neither
does one of a timer that is no more: pages and fragments are drawn without it. Both are dropped. All other messages are passed on.
"""

from math import inf

from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

CLOSE = 0.5  # of the seconds between two ticks: what comes sooner than that has piled up


class Ticks:
    """The timers of one tab, by their fragments, as far as the server has told of them."""

    def __init__(self) -> None:
        self._every: dict[str, float] = {}  # seconds between two ticks; inf: the page has ended it
        self._last: dict[str, float] = {}  # seconds of the event loop: when a tick was passed on

    def told(self, message: ForwardMsg) -> None:
        """Streamlit has a timer begin, or end."""
        kind = message.WhichOneof("type")
        if kind == "auto_rerun":
            self._every[message.auto_rerun.fragment_id] = message.auto_rerun.interval
        elif kind == "stop_auto_rerun":
            self._every |= dict.fromkeys(message.stop_auto_rerun.fragment_ids, inf)

    def page_began(self) -> None:
        """The browser ends all timers, until it is told of them anew."""
        self._every = dict.fromkeys(self._every, inf)

    def is_due(self, fragment: str, at: float) -> bool:
        """Whether a tick that comes then is to be passed on. Of a timer that was told of to an earlier connection it is."""
        every = self._every.get(fragment, 0.0)
        return every < inf and at - self._last.get(fragment, -inf) >= CLOSE * every

    def passed(self, fragment: str, at: float) -> None:
        """A tick was passed on."""
        if fragment in self._every:
            self._last[fragment] = at
