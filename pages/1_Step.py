"""Step: one method on one prompt, one target call at a time."""

from pages.parts.shared.setup import setup

setup("Step")

from pages.parts.shared.session import session  # noqa: E402  after setup: the page has its title already
from pages.parts.step.link import open_link  # noqa: E402
from pages.parts.step.open_trace import settle  # noqa: E402
from pages.parts.step.settings_bar import settings_bar  # noqa: E402
from pages.parts.step.step_view import step_view  # noqa: E402

here = session()
settle(here)
open_link(here)
settings_bar(here)
step_view(here)
