"""Step: one method on one prompt, one target call at a time."""

from pages.parts.shared.setup import setup

setup("Step")

from pages.parts.shared.controls import controls  # noqa: E402  after setup: it imports torch, and the page already has its title
from pages.parts.shared.session import session  # noqa: E402
from pages.parts.step.link import open_link  # noqa: E402
from pages.parts.step.step_view import pulse, stage  # noqa: E402

here = session()
open_link(here)
controls(here)
pulse(here)
stage(here)
