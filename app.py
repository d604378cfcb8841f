"""Home: what this is, the recorded first picture, where to begin. `streamlit run app.py` starts here."""

from pages.parts.shared.setup import setup

setup("Home")

from pages.parts.home import home  # noqa: E402

home()
