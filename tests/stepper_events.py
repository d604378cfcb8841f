"""What a browser tells a page of its stepper, without a browser: AppTest runs no component's code."""

import json
from itertools import count

from streamlit.components.v2.bidi_component.constants import EVENT_DELIM
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.runtime.state.session_state import STREAMLIT_INTERNAL_KEY_PREFIX
from streamlit.testing.v1 import AppTest

NAME = "draftscope_stepper"
moments = count(1)  # of presses: later is more


def sent(at: AppTest) -> dict:
    """What the stepper of a page was fed last."""
    return json.loads(element(at).json)


def element(at: AppTest):
    return next(found.proto for found in at.get("bidi_component") if found.proto.component_name == NAME)


def told(at: AppTest, **where) -> dict:
    """What the browser says of itself: it stands where the page last put it, unless told otherwise."""
    data, session = sent(at), at.session_state["draftscope"]
    usual = {"run": data["run"], "order": data["order"], "step": session.cursor, "phase": 3, "node": None, "have": 0}
    return usual | where


def asks(at: AppTest, what: str = "step", **where) -> AppTest:
    """Next, behind the last step: the page is asked for another one."""
    states = at._tree.get_widget_states()
    states.widgets.extend(asked(at, what, **where))
    return at._run(states)


def asked(at: AppTest, what: str = "step", **where) -> list[WidgetState]:
    """What the browser sends then."""
    value = told(at, **where) | {"key": what, "at": float(next(moments))}
    trigger = f"{STREAMLIT_INTERNAL_KEY_PREFIX}_{element(at).id}{EVENT_DELIM}events"
    return [WidgetState(id=trigger, json_trigger_value=json.dumps([{"event": "ask", "value": value}]))]


def stands(at: AppTest, step: int, phase: int = 3, node: int | None = None, **where) -> AppTest:
    """The reader has moved, all by themselves, and come to rest."""
    states = at._tree.get_widget_states()
    value = told(at, step=step, phase=phase, node=node, **where)
    states.widgets.add(id=element(at).id, json_value=json.dumps({"at": value}))
    return at._run(states)
