"""One training loop for everything the project trains: resumable, with a progress bar, on cpu, cuda or mps.

It knows parameters, a loss and a folder for checkpoints; it does not know what is being trained.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from decoding.training.precision import quick_at_bfloat16

SAVE_EVERY = 120.0  # seconds
CLIP = 1.0  # norm of the gradient


def optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms.

    Jordan et al. 2024, "Muon"; the learning rates are matched to AdamW's update size (Liu et al. 2025, section 2.2).
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    found: list[torch.optim.Optimizer] = []
    if matrices:
        found += [torch.optim.Muon(matrices, lr=2 * lr, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")]
    if others:
        found += [torch.optim.AdamW(others, lr=lr, weight_decay=0.0, betas=(0.9, 0.95))]
    return found


def adamw(model: nn.Module, lr: float, weight_decay: float = 0.05) -> list[torch.optim.Optimizer]:
    """AdamW for everything: for small models on a processor without bfloat16, where a step of Muon takes longer than the rest."""
    return [torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95))]


def suited(device: torch.device) -> Callable[[nn.Module, float], list[torch.optim.Optimizer]]:
    """`optimizers`, whose Muon works in bfloat16, where the device is quick at that; else `adamw`."""
    return optimizers if quick_at_bfloat16(device) else adamw


def rate(step: int, steps: int, warmup: int = 60, hold: float = 0.35) -> float:
    """Learning-rate factor: up over `warmup` steps, constant until `hold` of all steps, then down to 0 in a line."""
    return min(1.0, (step + 1) / warmup, (steps - step) / (steps * (1 - hold)))


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    checkpoint: Path,
    title: str,
    report: Callable[[int], str] = lambda step: "",
    report_every: int = 500,
    optimized: Callable[[nn.Module, float], list[torch.optim.Optimizer]] = optimizers,
    factor: Callable[[int, int], float] = rate,
    enough: float = -math.inf,
) -> None:
    """Train `model` in place for `steps` steps, going on from `checkpoint` if it exists.

    Args:
        loss: step -> scalar; everything random in it must depend on the step alone, so that a resumed run is the same run.
        checkpoint: a file; written every two minutes and at the end, and read with `weights_only=True`.
        report: step -> text printed every `report_every` steps, for example losses on held-out text.
        optimized: (model, lr) -> its optimizers.
        factor: (step, steps) -> what the learning rate is multiplied with.
        enough: it ends before `steps` when the smoothed loss is below this.

    Raises:
        SystemExit: interrupted by Ctrl-C; the sentence says how to go on. What was learned since the last checkpoint is lost.
    """
    found = optimized(model, lr)
    first, smooth = resume(model, found, checkpoint)
    if smooth is not None and smooth < enough:
        return
    bar = tqdm(range(first, steps), initial=first, total=steps, desc=title, mininterval=10)
    saved = time.monotonic()
    try:
        for step in bar:
            value = loss(step)
            value.backward()
            updated(model, found, factor(step, steps))
            smooth = value.item() if smooth is None else 0.95 * smooth + 0.05 * value.item()
            bar.set_postfix_str(f"loss {smooth:.3f}", refresh=False)
            last = step + 1 == steps or smooth < enough
            if time.monotonic() - saved > SAVE_EVERY or last:
                save(model, found, checkpoint, step + 1, smooth)
                saved = time.monotonic()
            if (step + 1) % report_every == 0 or last:
                tqdm.write(f"{title} step {step + 1}: {report(step + 1)}")
            if last:
                break
    except KeyboardInterrupt:
        raise SystemExit(f"Stopped. The same command goes on from the last checkpoint, {checkpoint}.") from None


def updated(model: nn.Module, found: list[torch.optim.Optimizer], factor: float) -> None:
    """One step of every optimizer, at its learning rate times `factor`."""
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    for optimizer in found:
        for group in optimizer.param_groups:
            group.setdefault("full_lr", group["lr"])
            group["lr"] = group["full_lr"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def save(model: nn.Module, found: list[torch.optim.Optimizer], checkpoint: Path, step: int, smooth: float) -> None:
    """Write beside the old checkpoint, then replace it: a kill in between loses nothing."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    fresh = checkpoint.with_suffix(".new")
    states = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in found]}
    torch.save({"step": step, "smooth": smooth, **states}, fresh)
    fresh.replace(checkpoint)


def resume(model: nn.Module, found: list[torch.optim.Optimizer], checkpoint: Path) -> tuple[int, float | None]:
    """Load the checkpoint if there is one; returns the step to go on with, and the smoothed loss so far."""
    if not checkpoint.exists():
        return 0, None
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, values in zip(found, state["optimizers"], strict=True):
        optimizer.load_state_dict(values)
    return state["step"], state.get("smooth")
