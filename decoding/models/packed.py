"""A wide matrix in a second layout, for products with several rows on a processor.

The library that torch multiplies float32 with reads weights as they lie, which is quick for one row and slow for the handful of
rows of a draft tree: behind a vocabulary of 49,152 tokens the head took six times as long for six rows as for one, a quarter of
the whole pass. oneDNN multiplies such rows in blocks, and wants the weights in blocks too. Whether that pays is not taken on
trust: both ways are timed when a model is loaded. It costs the memory of the matrix once more, so it is done for the head alone;
the layers hold four times as much, and a tree's pass would get a tenth shorter still (measured on SmolLM2-135M, on a processor of
AMD).
"""

from time import perf_counter

import torch
from torch import Tensor

from decoding.models import memory

ROWS = 6, 24  # of a drafted chain, of a draft tree
ROUNDS = 5  # of both ways in turn; the quickest of each counts
LEAST, MOST = 32 * 2**20, 2**30  # bytes: a smaller one stays in the cache of the processor, a larger one is too much to have twice
PAYS = 0.85  # of the time that the ordinary product takes, over all ROWS
SPARE = 4  # times as much must be free as is taken


def packed(by: Tensor) -> Tensor | None:
    """(inputs, outputs) weights in blocks if they are multiplied faster so on this processor, and may be there twice."""
    if by.device.type != "cpu" or by.dtype != torch.float32 or not LEAST <= by.nbytes <= MOST:
        return None
    left = memory.free()
    if left is not None and by.nbytes * SPARE > left:
        return None
    try:
        blocks = in_blocks(by)
        return blocks if share(by, blocks) <= PAYS else None
    except (AttributeError, RuntimeError, TypeError):  # torch's way to oneDNN is not a public one
        return None


@torch.inference_mode()
def in_blocks(by: Tensor) -> Tensor:
    """(inputs, outputs) -> the same in the layout that oneDNN multiplies with; nothing else can read it."""
    return torch.ops.mkldnn._reorder_linear_weight(by.t().contiguous(), ROWS[0])


def multiplied(rows: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    """(n, inputs) -> (n, outputs). No gradient passes."""
    return torch.ops.mkldnn._linear_pointwise(rows, blocks, bias, "none", [], "")


@torch.inference_mode()
def share(by: Tensor, blocks: Tensor) -> float:
    """How long products in blocks take, as a share of the ordinary ones."""
    best: dict[tuple[int, int], float] = {}
    for _ in range(ROUNDS):
        for n in ROWS:
            rows = torch.zeros(n, len(by))
            for way, product in enumerate((lambda rows=rows: torch.mm(rows, by), lambda rows=rows: multiplied(rows, blocks, None))):
                began = perf_counter()
                product()
                best[way, n] = min(best.get((way, n), float("inf")), perf_counter() - began)
    ordinary, shorter = (sum(best[way, n] for n in ROWS) for way in (0, 1))
    return shorter / ordinary
