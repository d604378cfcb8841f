"""A hand-built trace of three different steps."""

from decoding.trace import Trace
from tests.viz_samples import chain, small_tree, step_of, trace_of


def sample_trace() -> Trace:
    return trace_of(chain(), small_tree(), step_of())
