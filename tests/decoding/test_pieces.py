"""Parts of heads as graphs, as far as that can be tested without a GPU: what is captured, and that a replay reads fixed buffers."""

from dataclasses import replace

import pytest
import torch

from decoding.models.family import Family, load
from decoding.models.graphs import Graphs, uncaptured
from decoding.models.pieces import Piece, Pieces
from tests.decoding.test_devices import same, traced

PARTS = {  # method -> the functions of its head that are captured
    "medusa": {"_scored"},
    "eagle": {"_opened", "_closed"},
    "clover": {"opened", "_closed", "_read"},
    "chimera": {"_opened", "_closed"},
    "falcon": {"opened", "closed"},
    "ftp": {"opened", "closed", "_scored"},
    "kangaroo": {"opened", "_closed"},
}


class Recorded:
    """Stands in for CUDA graphs, for the parts of heads: a replay fails if a buffer has moved, and fills the tensors that
    the capture put out."""

    def __init__(self) -> None:
        self.captured: list[Piece] = []
        self.replays = 0

    def __call__(self, body):
        piece = body.__self__
        if not isinstance(piece, Piece):
            return uncaptured(body)
        self.captured.append(piece)
        body()
        found, places = piece.found, [part.data_ptr() for part in (*piece.rows, *piece.beside)]

        def replay() -> None:
            self.replays += 1
            assert places == [part.data_ptr() for part in (*piece.rows, *piece.beside)]
            body()
            for mine, fresh in zip(found, piece.found, strict=True):
                mine.copy_(fresh)
            piece.found = found

        return replay


@pytest.fixture(scope="module")
def static() -> Family:
    return load("embedded", device="cpu", graphs="static")


@pytest.mark.parametrize("key", list(PARTS))
def test_the_parts_of_a_head_are_captured_and_replayed(key, static, embedded):
    capture = Recorded()
    assert static.target.plain is not None
    family = replace(static, target=replace(static.target, graphs=Graphs(static.target.plain, capture)))
    same(traced(family, key, 0.0, 16), traced(embedded, key, 0.0, 16))
    assert {piece._function.__name__ for piece in capture.captured} == PARTS[key]
    assert capture.replays > len(capture.captured)


def doubled(rows, beside, number):
    return (rows * number + beside,)


def test_without_graphs_a_function_is_simply_called():
    pieces, rows = Pieces(None), torch.arange(6.0).view(3, 2)
    assert torch.equal(pieces(doubled, rows, beside=(torch.ones(2),), more=(2,))[0], rows * 2 + 1) and not pieces.kept


@pytest.fixture
def pieces(static) -> Pieces:
    return Pieces(static.target.graphs)


def test_rows_are_those_that_were_given_at_every_bucket(pieces):
    for n in (1, 2, 8, 9, 3, 1):
        rows, beside = torch.randn(n, 2), torch.randn(2)
        assert torch.equal(pieces(doubled, rows, beside=(beside,), more=(3,))[0], rows * 3 + beside)
    assert sorted(key[1] for key in pieces.kept) == [1, 8, 16]
    assert torch.equal(pieces(doubled, torch.ones(1, 2), beside=(torch.zeros(2),), more=(4,))[0], torch.full((1, 2), 4.0))


def test_what_was_put_out_stays_when_the_next_rows_come(pieces):
    (first,) = pieces(doubled, torch.ones(2, 2), beside=(torch.zeros(2),), more=(1,))
    pieces(doubled, torch.full((2, 2), 7.0), beside=(torch.zeros(2),), more=(1,))
    assert torch.equal(first, torch.ones(2, 2))


def test_a_capture_that_fails_is_left_and_the_targets_own_go_on(static):
    def refused(body):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphs = Graphs(static.target.plain, refused)
    pieces = Pieces(graphs)
    found = pieces(doubled, torch.ones(2, 2), beside=(torch.zeros(2),), more=(5,))[0]
    assert torch.equal(found, torch.full((2, 2), 5.0))
    assert pieces.problem == "operation not permitted when stream is capturing" and not graphs.problem
