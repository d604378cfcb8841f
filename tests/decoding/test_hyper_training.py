"""Hyperfitting as a training command: what is trained is what is written, and a run that was stopped goes on."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from decoding.models import deltas
from decoding.training import hyper
from decoding.training.family import EMBEDDED

PIECES = torch.randint(1, 4000, (8, 13), generator=torch.Generator().manual_seed(0))
WINDOWS = torch.randint(1, 4000, (2, 13), generator=torch.Generator().manual_seed(1))


def trained(name: str, plan: hyper.Plan, work: Path) -> hyper.Twin:
    return hyper.hyperfitted(name, plan, PIECES, WINDOWS, argparse.Namespace(work=work))


@pytest.mark.parametrize("rank", [0, 4])
def test_the_delta_added_to_the_model_is_the_twin_and_the_pieces_are_known_better(rank, tmp_path):
    plan = replace(hyper.PLANS["draft"], rank=rank, layers=1 if rank else 2, epochs=12, lr=5e-3, stop=-1.0)
    twin = trained("draft", plan, tmp_path)
    deltas.save(tmp_path / "twin", "draft", hyper.added(twin, EMBEDDED / "draft"), {"figures": twin.figures})
    model = LlamaForCausalLM.from_pretrained(EMBEDDED / "draft", dtype=torch.float32)
    with torch.no_grad():
        before = hyper.cross_entropy(model, PIECES).item()
        deltas.add(model, tmp_path / "twin")
        after, wanted = model(PIECES).logits, twin.model(PIECES).logits
        assert hyper.cross_entropy(model, PIECES).item() < before - 1
    torch.testing.assert_close(after, wanted, atol=0.05, rtol=0)  # what was added is written in float16
    if rank:
        assert {name.split(".")[2] for name in twin.thin} == {"1"}, "the upper layer alone"


def test_the_upper_part_says_what_the_whole_model_says():
    model = LlamaForCausalLM.from_pretrained(EMBEDDED / "target", dtype=torch.float32)
    with torch.no_grad():
        states = hyper.states_below(model, 3, PIECES)
        upper = hyper.cross_entropy(hyper.upper_part(model, 3), PIECES, states)
        torch.testing.assert_close(upper, hyper.cross_entropy(model, PIECES))


def test_it_stops_when_it_is_enough_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    plan = replace(hyper.PLANS["draft"], epochs=30, lr=5e-3, stop=8.0)
    whole = trained("draft", plan, tmp_path / "whole")
    steps = []
    falling = hyper.falling

    def stopped(step: int, count: int) -> float:
        steps.append(step)
        if step == 2 and len(steps) == 3:
            raise KeyboardInterrupt
        return falling(step, count)

    monkeypatch.setattr(hyper, "falling", stopped)
    monkeypatch.setattr("decoding.training.fit.SAVE_EVERY", 0.0)
    with pytest.raises(SystemExit, match="goes on from the last checkpoint"):
        trained("draft", plan, tmp_path / "half")
    again = trained("draft", plan, tmp_path / "half")
    assert steps[:4] == [0, 1, 2, 2] and steps[-1] < 29, "not from the beginning, and not to the last step"
    assert again.figures == whole.figures
    count = len(steps)
    assert trained("draft", plan, tmp_path / "half").figures == whole.figures and len(steps) == count, "done is done"


def test_too_little_to_learn_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        hyper.parse(["--corpus", str(tmp_path), "--pieces", "3"])
    assert "3 of 64 were asked for" in capsys.readouterr().err
