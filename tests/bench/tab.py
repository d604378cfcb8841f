"""A browser's tab as the server sees it: a websocket that speaks Streamlit's protocol, without a screen.

It does what Streamlit's own page does between the server and the screen: it keeps large messages and says which it has, runs the
timers that fragments ask for, and sends the press of a button with the fragment that the button belongs to. So a server has the
same work with it as with a visitor, and a machine can hold a hundred of them.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter, time

from streamlit.components.v2.bidi_component.constants import EVENT_DELIM
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Delta_pb2 import Delta
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.state.session_state import STREAMLIT_INTERNAL_KEY_PREFIX
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Origin, Subprotocol

from decoding.runs.visitors import COOKIE

STEPPER = "draftscope_stepper"  # the component that shows a run
WHOLE = (ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY)


@dataclass
class Button:
    id: str
    fragment: str  # "": of the page itself
    disabled: bool


@dataclass
class Stepper:
    """What the stepper of the page was fed last."""

    id: str
    fragment: str
    data: dict
    have: int = 0  # steps that came so far


@dataclass
class Kept:
    """A large message, which the server need not send again."""

    message: ForwardMsg
    run: int  # of the tab, when it was used last
    fragment: str


class Closed(Exception):
    """The server has closed the connection, or took none."""


class Tab:
    """One visitor on one page; to be opened, used and closed in one event loop."""

    def __init__(self, address: str, page: str = "", query: str = "", visitor: str = "") -> None:
        """
        Args:
            address: of the server, such as http://127.0.0.1:8501.
            page: its name in the address; "" is Home.
            query: of the address, without the question mark.
            visitor: the key that its cookie brings; "" for none.
        """
        self.address, self.page, self.query, self.visitor = address.rstrip("/"), page, query, visitor
        self.buttons: dict[str, Button] = {}  # by their keys
        self.charts: set[str] = set()  # keys of the figures and components that came since the last whole run of the page began
        self.messages = 0  # that the server sent
        self.runs = 0  # of the page or of fragments, that came to their end
        self.stepper: Stepper | None = None
        self.shown: int | None = None  # the step that the page had the stepper stand at, and the end of the run that said so
        self.shown_at = 0.0
        self.exceptions: list[str] = []  # tracebacks and their like, which no page should show
        self._drawn: int | None = None
        self._script = ""  # the page's hash, once the server has told it
        self._kept: dict[str, Kept] = {}
        self._longest = 2  # runs that a large message is kept without being used
        self._timers: dict[str, tuple[float, asyncio.Task]] = {}
        self._fragments: list[str] = []  # of the run under way
        self._changed = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task | None = None
        self._asking: asyncio.Task | None = None  # kept: a loop holds its tasks weakly
        self._over: Exception | None = None

    async def open(self) -> None:
        """Connect and ask for the page; returns at once after that. Closed if the server takes no connection."""
        address = self.address.replace("http", "ws", 1) + "/_stcore/stream"
        try:
            self._socket = await connect(
                address,
                origin=Origin(self.address),
                subprotocols=[Subprotocol("streamlit")],
                additional_headers={"Cookie": f"{COOKIE}={self.visitor}"} if self.visitor else None,
                max_size=None,
                ping_interval=None,  # a browser sends none
                open_timeout=60,
            )
        except (OSError, WebSocketException) as error:
            raise Closed(f"No connection: {error!r}") from error
        self._reader = asyncio.create_task(self._read(self._socket))
        await self.rerun()

    async def close(self) -> None:
        """As a browser closes a tab."""
        self._stop_timers()
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await self._reader

    async def press(self, key: str) -> None:
        """Press a button; ValueError if there is none of that key, or it is disabled; Closed as in `until`."""
        button = self.buttons.get(key)
        if button is None or button.disabled:
            raise ValueError(f"The page {self.page or 'Home'!r} has no button {key!r} that can be pressed.")
        await self.rerun(button.fragment, pressed=button.id)

    async def ask(self) -> None:
        """Next, behind the last step; ValueError if no other step can be asked for; Closed as in `until`."""
        stepper = self.stepper
        if stepper is None or not stepper.data["more"] or stepper.data["busy"]:
            raise ValueError(f"The page {self.page or 'Home'!r} has no stepper that another step can be asked of.")
        await self._say(stepper, "step")

    async def _rest(self) -> None:
        """The next part of a long run."""
        with suppress(Closed):
            if self.stepper is not None:
                await self._say(self.stepper, "resend")

    async def _say(self, stepper: Stepper, what: str) -> None:
        told = {name: stepper.data[name] for name in ("run", "order")}
        told |= {"step": stepper.data["at"][0], "phase": 3, "node": None, "have": stepper.have, "key": what, "at": time()}
        trigger = f"{STREAMLIT_INTERNAL_KEY_PREFIX}_{stepper.id}{EVENT_DELIM}events"
        await self.rerun(stepper.fragment, asked=(trigger, json.dumps([{"event": "ask", "value": told}])))

    async def until(self, true: Callable[[], object], patience: float) -> bool:
        """Whether `true` comes to hold within so many seconds.

        Raises:
            Closed: the server has closed the connection, or could not be understood.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not true():
                    if self._over is not None:
                        raise Closed(f"The connection has ended: {self._over!r}") from self._over
                    self._changed.clear()
                    await self._changed.wait()
        return bool(true())

    # -- to the server -------------------------------------------------------------------------------------------------

    async def rerun(self, fragment: str = "", pressed: str = "", auto: bool = False, asked: tuple[str, str] | None = None) -> None:
        """Ask for a run of the page, or of one of its fragments."""
        message = BackMsg()
        state = message.rerun_script
        state.query_string, state.fragment_id, state.is_auto_rerun = self.query, fragment, auto
        state.page_script_hash, state.page_name = self._script, "" if self._script else self.page
        state.context_info.url = f"{self.address}/{self.page}"
        state.context_info.color_scheme, state.context_info.timezone, state.context_info.locale = "light", "UTC", "en-GB"
        state.cached_message_hashes.extend(self._kept)
        if pressed:
            state.widget_states.widgets.add(id=pressed, trigger_value=True)
        if asked is not None:
            state.widget_states.widgets.add(id=asked[0], json_trigger_value=asked[1])
        if self._socket is None:
            raise Closed("The tab is not open.")
        try:
            await self._socket.send(message.SerializeToString())
        except WebSocketException as error:
            raise Closed(f"The connection has ended: {error!r}") from error

    async def _tick(self, fragment: str, interval: float) -> None:
        with suppress(Closed):
            while True:
                await asyncio.sleep(interval)
                await self.rerun(fragment, auto=True)

    def _stop_timers(self, *fragments: str) -> None:
        """Those of the fragments, or all."""
        for fragment in fragments or tuple(self._timers):
            if fragment in self._timers:
                self._timers.pop(fragment)[1].cancel()

    # -- from the server -----------------------------------------------------------------------------------------------

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for data in socket:
                message = ForwardMsg()
                message.ParseFromString(data if isinstance(data, bytes) else data.encode())
                self.messages += 1
                self._take(self._whole(message))
                self._changed.set()
            self._over = ConnectionError("closed")
        except Exception as error:  # whoever waits is told
            self._over = error
        self._stop_timers()
        self._changed.set()

    def _whole(self, message: ForwardMsg) -> ForwardMsg:
        """The message itself, where only its hash was sent."""
        if message.WhichOneof("type") == "ref_hash":
            kept = self._kept[message.ref_hash]
            kept.run = self.runs
            found = ForwardMsg()
            found.CopyFrom(kept.message)
            found.metadata.CopyFrom(message.metadata)
            return found
        if message.metadata.cacheable:
            self._kept[message.hash] = Kept(message, self.runs, message.delta.fragment_id)
        return message

    def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._begun(message)
        elif kind == "delta":
            self._drew(message.delta)
        elif kind == "script_finished":
            self._finished(message.script_finished)
        elif kind == "auto_rerun":
            self._timer(message.auto_rerun.fragment_id, message.auto_rerun.interval)
        elif kind == "stop_auto_rerun":
            for fragment in message.stop_auto_rerun.fragment_ids:
                self._stop_timers(fragment)
        elif kind == "navigation":
            self._script = message.navigation.page_script_hash
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string

    def _begun(self, message: ForwardMsg) -> None:
        self._longest = message.new_session.config.max_cached_message_age
        self._fragments = list(message.metadata.run.fragment_ids)
        if not self._fragments:
            self._script = message.new_session.page_script_hash
            self._stop_timers()
            self.charts.clear()

    def _timer(self, fragment: str, interval: float) -> None:
        if fragment in self._timers and self._timers[fragment][0] == interval:
            return
        self._stop_timers(fragment)
        self._timers[fragment] = interval, asyncio.create_task(self._tick(fragment, interval))

    def _drew(self, delta: Delta) -> None:
        element = delta.new_element
        kind = element.WhichOneof("type")
        if kind == "bidi_component":
            self.charts.add(element.bidi_component.id.rpartition("-")[2])
        if kind == "button":
            key = element.button.id.rpartition("-")[2]
            self.buttons[key] = Button(element.button.id, delta.fragment_id, element.button.disabled)
        elif kind == "bidi_component" and element.bidi_component.component_name == STEPPER:
            data = json.loads(element.bidi_component.json)
            self.stepper = Stepper(element.bidi_component.id, delta.fragment_id, data, data["from"] + len(data["steps"]))
            self._drawn = data["at"][0] + 1
            if self.stepper.have < data["count"]:
                self._asking = asyncio.create_task(self._rest())
        elif kind == "plotly_chart":
            self.charts.add(element.plotly_chart.id.rpartition("-")[2])
        elif kind == "exception":
            self.exceptions.append(f"{element.exception.type}: {element.exception.message}")

    def _finished(self, status: int) -> None:
        """What the run sent is on the screen now, if it came to its end."""
        self.runs += 1
        if status not in WHOLE:
            return
        if self._drawn != self.shown:
            self.shown, self.shown_at = self._drawn, perf_counter()
        for name, kept in list(self._kept.items()):
            mine = not self._fragments or kept.fragment in self._fragments
            if mine and self.runs - kept.run > self._longest:
                del self._kept[name]
