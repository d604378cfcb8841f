"""Times as the reader's clock has them: a server may stand anywhere."""

from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

import streamlit as st


def zone() -> tzinfo | None:
    """The browser's, as it says; None, which stands for the server's, if that is none."""
    try:
        return ZoneInfo(st.context.timezone or "")
    except (KeyError, ValueError, OSError):  # there is no such zone; no name of one; a folder of them
        return None


def local(seconds: float) -> datetime:
    """Seconds since 1970 -> what the reader's clock said then."""
    return datetime.fromtimestamp(seconds, zone()).replace(tzinfo=None)
