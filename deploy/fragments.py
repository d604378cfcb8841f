"""Which fragments a page has. Streamlit drops a message for one that is not there and says nothing of it: whoever sent many would
keep the places in which scripts run (`deploy/places.py`) while none does."""

from streamlit import runtime


def has_fragment(session: str, fragment: str) -> bool:
    """Whether a session has it, by the id of the session, "" while there is none; yes where Streamlit cannot be asked."""
    manager = getattr(runtime.get_instance() if runtime.exists() else None, "_session_mgr", None)
    if manager is None:
        return True
    found = manager.get_active_session_info(session)
    return found is not None and found.session.has_fragment(fragment)
