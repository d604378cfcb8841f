"""A model is tried out and tapped on one thread while another one reads with it."""

import threading

import pytest
import torch

from decoding.models import attention_row
from decoding.models.cache import TreeCache
from decoding.models.heard import heard


@pytest.fixture
def beside():
    """Have something done over and over on another thread while a test goes on."""
    over, threads = threading.Event(), []

    def begin(do) -> None:
        begun = threading.Event()

        def work() -> None:
            while not over.is_set():
                with torch.inference_mode():
                    do()
                begun.set()

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        assert begun.wait(60)

    yield begin
    over.set()
    for thread in threads:
        thread.join()


def test_what_others_have_a_module_put_out_is_not_heard(beside):
    layer, found = torch.nn.Linear(3, 3), []
    with heard(layer, found.append):
        beside(lambda: layer(torch.zeros(1, 3)))
        own = layer(torch.ones(1, 3))
    layer(torch.ones(1, 3))
    assert len(found) == 1 and found[0] is own


def test_a_model_is_tried_out_while_others_read_with_it(beside, llama):
    """A refusal would be kept for as long as the model lives, for everybody."""
    beside(lambda: llama.target.extend(TreeCache(), range(40)))
    assert [attention_row.tried(llama.target) for _ in range(20)] == [""] * 20
