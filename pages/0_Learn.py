"""Learn: seven short lessons on recorded runs."""

from pages.parts.shared.setup import setup

setup("Learn")

from pages.parts.learn.learn import learn  # noqa: E402  after setup: the page has its title already

learn()
