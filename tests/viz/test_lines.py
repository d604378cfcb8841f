"""Lines of several runs: told apart with and without colour."""

from tests.viz_samples import DRAFTED, PLAINLY
from viz.runs.lines import LINES, PLAIN, styles


def test_plain_is_neutral_and_every_line_has_its_own_dash_and_marker():
    six = [("plain", PLAINLY)] + [(str(i), DRAFTED) for i in range(5)]
    looks = styles(six)
    assert looks[0] == PLAIN and looks[1] == LINES[0]
    assert len({look[0] for look in looks}) == len({look[1:] for look in looks}) == 6
    assert [len(styles([("x", DRAFTED)] * n)) for n in (0, 6, 20)] == [0, 6, 20]
