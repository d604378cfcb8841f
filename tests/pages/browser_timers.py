"""What a browser adds to AppTest: timers, clicks that run one fragment, and what all that costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from streamlit.proto.WidgetStates_pb2 import WidgetState, WidgetStates
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData
from streamlit.testing.v1 import AppTest, local_script_runner
from streamlit.testing.v1.element_tree import ElementTree
from streamlit.testing.v1.local_script_runner import LocalScriptRunner, ScriptRunnerEvent

from tests.stepper_events import asked

PAGE = "page"  # a run of the whole page


def unchanged():
    """While the block runs AppTest sends no values of widgets: it knows those of the last run of a whole page."""
    return patch.object(ElementTree, "get_widget_states", lambda tree: WidgetStates())


@dataclass
class Browser:
    """A page, its timers, and a note of every run of the page or of fragments."""

    at: AppTest
    timers: dict[str, float] = field(default_factory=dict)  # fragment -> seconds
    runs: list[str] = field(default_factory=list)  # keys of fragments, "timer" for those without one, or PAGE
    messages: int = 0  # to the browser

    def open(self, **changed: Any) -> "Browser":
        """The page as a whole, once the controls say what was `changed`."""
        for key, value in changed.items():
            self.at.session_state[key] = value
        with self._noting(), unchanged():
            self.at.run()
        assert not self.at.exception, self.at.exception
        return self

    def click(self, button: str, fragment: str) -> None:
        """Press a button that lies in the fragment with this key."""
        state = WidgetState(id=self.at.button(key=button).id, trigger_value=True)
        self._run(self.storage.resolve_target(fragment)[0], state)

    def ask(self, fragment: str) -> None:
        """Next, on the stepper that lies in the fragment: another step is asked for."""
        self._run(self.storage.resolve_target(fragment)[0], *asked(self.at))

    def tick(self) -> None:
        """The time of every timer has come."""
        for fragment in list(self.timers):
            if fragment in self.timers:
                self._run(fragment)

    @property
    def storage(self):
        return self.at._fragment_storage

    def _run(self, fragment: str, *changed: WidgetState) -> None:
        tree, data = self.at._tree, RerunData

        def rerun_data(**options: Any) -> RerunData:
            return data(**(options | {"fragment_id": fragment, "widget_states": WidgetStates(widgets=changed)}))

        with self._noting(), unchanged(), patch.object(local_script_runner, "RerunData", rerun_data):
            self.at.run()
        assert not self.at.exception, self.at.exception
        self.at._tree = tree  # the other elements stay on the page

    def _named(self, fragment: str) -> str:
        return next((key for key, ids in self.storage._ids_by_target_key.items() if fragment in ids), "timer")

    @contextmanager
    def _noting(self) -> Iterator[None]:
        made: list[LocalScriptRunner] = []
        original = LocalScriptRunner.__init__

        def init(runner, *args: Any, **options: Any) -> None:
            original(runner, *args, **options)
            made.append(runner)

        with patch.object(LocalScriptRunner, "__init__", init):
            yield
        for runner in made:
            for event, data in zip(runner.events, runner.event_data, strict=True):
                self._note(event, data)

    def _note(self, event: ScriptRunnerEvent, data: dict) -> None:
        if event == ScriptRunnerEvent.SCRIPT_STARTED:
            self.messages += 1
            fragments = data.get("fragment_ids_this_run") or ()
            self.runs += [self._named(fragment) for fragment in fragments] or [PAGE]
            if not fragments:
                self.timers.clear()
        elif event == ScriptRunnerEvent.ENQUEUE_FORWARD_MSG:
            self.messages += 1
            message = data["forward_msg"]
            if message.HasField("auto_rerun"):
                self.timers[message.auto_rerun.fragment_id] = round(message.auto_rerun.interval, 3)  # from float32
            elif message.HasField("stop_auto_rerun"):
                for fragment in message.stop_auto_rerun.fragment_ids:
                    self.timers.pop(fragment, None)
