"""Step: one method on one prompt, one target call at a time."""

from pages.parts.setup import setup

setup("Step")

from pages.parts.controls import controls  # noqa: E402  after setup: it imports torch, and the page already has its title
from pages.parts.link import open_link  # noqa: E402
from pages.parts.session import session  # noqa: E402
from pages.parts.stage import pulse, stage  # noqa: E402

here = session()
open_link(here)
controls(here)
pulse(here)
stage(here)
