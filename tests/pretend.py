"""A pretended accelerator: a device that no machine has, on which tensors lie apart from those of the host.

Code that never saw a GPU mixes up devices, and copies from them oftener than it should. Here both are faults that a test sees: a
tensor of the device `pretend:0` holds a CPU tensor, and every operator runs on what is held, but only if all its tensors lie on one
side (a number of the host, without dimensions, is fine, as is an index), random numbers are drawn by a generator of the same side,
and nothing comes to the host unless it is copied, which is counted.

    with pretended() as device:
        ...
        device.copies  # to the host, so far
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.backend_registration import _DummyBackendModule, _DummyPrivateUse1Hook, _setup_privateuseone_for_python_backend

NAME = "pretend"
_apply, _Generator = nn.Module._apply, torch.Generator
TRANSFERS = {"aten::_to_copy", "aten::copy_"}  # may see both sides
INDEXED = {
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
}  # takes indices of the host, as CUDA does
ASKED = {  # what cannot be known without waiting for the device
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select", "aten::_unique2",
    "aten::unique_dim", "aten::unique_consecutive",
}  # fmt: skip
WHOLE = {F.scaled_dot_product_attention, torch.lstm}  # which the host does in another way than in parts


class MixUp(AssertionError):
    """What a real device would refuse."""


class Pretended(Tensor):
    """A tensor of the device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=device()
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"Pretended({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(func, args, kwargs or {})


class Backend(_DummyBackendModule):
    """What torch asks of a backend. Outside of `pretended` there is no such device: other tests must not find one."""

    def is_available(self) -> bool:
        return _now is not None

    def device_count(self) -> int:
        return int(_now is not None)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class Hook(_DummyPrivateUse1Hook):
    """The same, asked from the other side."""

    def is_available(self) -> bool:
        return _now is not None


@cache
def device() -> torch.device:
    """The one device, made known to torch when it is first asked for."""
    _setup_privateuseone_for_python_backend(NAME, Backend(), Hook())
    return torch.device(NAME, 0)


class Pretence:
    """What is counted while the device is there."""

    def __init__(self) -> None:
        self.device = device()
        self.generators: dict[int, Generator] = {}  # that lie there, by what stays the same where torch wraps one anew
        self.counts: Counter[str] = Counter()  # copies to the host, by the operator that made them

    @property
    def copies(self) -> int:
        return self.counts.total()


_now: Pretence | None = None


@contextmanager
def pretended(again: Pretence | None = None) -> Iterator[Pretence]:
    """While the block runs there is the device, for this thread; `again` goes on counting."""
    global _now
    assert _now is None, "one at a time"
    _now = again or Pretence()
    try:
        with ExitStack() as entered:
            for mode in (Operators(), Functions()):
                entered.enter_context(mode)
            for of, name, ours in (
                (torch._C, "_InferenceMode", NoGrad), (nn.Module, "_apply", applied), (torch, "Generator", generator)
            ):  # fmt: skip
                entered.enter_context(patch.object(of, name, ours))
            yield _now
    finally:
        _now = None


def applied(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """`Module._apply` that keeps the parameters of a module that is brought to the device, and so what it has tied."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return _apply(module, *args, **kwargs)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


class Generator(torch.Generator):
    """One of the device, which gives the numbers that one of the host would give."""

    @property
    def device(self) -> torch.device:
        return device()

    def manual_seed(self, seed: int) -> "Generator":
        super().manual_seed(seed)
        return self


def generator(where: Any = "cpu") -> torch.Generator:
    """In place of `torch.Generator`."""
    if not is_ours(where):
        return _Generator()
    assert _now is not None
    made = Generator()
    _now.generators[made._cdata] = made
    return made


class NoGrad:
    """In place of the inference mode, in which torch cannot wrap what a view of a tensor is."""

    def __init__(self, mode: bool) -> None:
        self.guard = torch.no_grad() if mode else nullcontext()

    def __enter__(self) -> None:
        self.guard.__enter__()

    def __exit__(self, *why: Any) -> None:
        self.guard.__exit__(*why)


def count(what: str) -> None:
    if _now is not None:
        _now.counts[what] += 1


def held(value: Any) -> Any:
    return value.held if isinstance(value, Pretended) else value


def is_ours(where: Any) -> bool:
    return where is not None and torch.device(where).type == NAME


def run(func: Any, args: tuple, kwargs: dict) -> Any:
    """One operator, on what its tensors hold."""
    name = func._schema.name
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    ours = [value for value in tensors if isinstance(value, Pretended)]
    asked = kwargs.get("device")
    check(name, args, kwargs, tensors, ours)
    if is_ours(asked):
        kwargs = kwargs | {"device": torch.device("cpu")}
    given, named = tree_map(held, args), tree_map(held, kwargs)
    out = func(*given, **named)
    if name in ASKED and ours:
        count(name)
    if name == "aten::copy_" and ours and not isinstance(args[0], Pretended):
        count(name)
    if any(alias.is_write for value in func._schema.arguments if (alias := value.alias_info)):
        return written(func, args, kwargs, out)
    if name == "aten::_to_copy" and ours and asked is not None and not is_ours(asked):
        count(name)
        return out
    return tree_map(wrapped, out) if ours or is_ours(asked) else out


def wrapped(value: Any) -> Any:
    return Pretended(value) if isinstance(value, Tensor) else value


def written(func: Any, args: tuple, kwargs: dict, out: Any) -> Any:
    """What an operator gives back that writes into one of its tensors: that one itself."""
    targets = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Pretended)]

    def same(value: Any) -> Any:
        return next((one for one in targets if one.held is value), value)

    found = tree_map(same, out)
    changed = [one for one in targets if one.shape != one.held.shape]
    if changed:
        raise NotImplementedError(f"{func} changes the shape of a tensor, which the pretended device cannot follow")
    return found


def check(name: str, args: tuple, kwargs: dict, tensors: list[Tensor], ours: list[Pretended]) -> None:
    """Refuse what a real device refuses."""
    rng, there = kwargs.get("generator"), bool(ours) or is_ours(kwargs.get("device"))
    if rng is not None and there != (_now is not None and rng._cdata in _now.generators):
        raise MixUp(f"{name} draws with a generator of the other side")
    if not ours or name in TRANSFERS:
        return
    checked = tensors if name not in INDEXED else [args[0], *(args[2:3] if len(args) > 2 else ())]
    strange = [value for value in checked if not isinstance(value, Pretended) and value.ndim]
    if strange or (name in INDEXED and not isinstance(args[0], Pretended)):
        raise MixUp(f"{name} mixes a tensor of the host with one of the device: {[tuple(v.shape) for v in tensors]}")
    if name in INDEXED and any(isinstance(index, Pretended) and index.dtype is torch.bool for index in args[1]):
        count(f"{name} by a mask")


class Operators(TorchDispatchMode):
    """What is made on the device, or brought there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(func, args, kwargs or {})


def tolist(values: Tensor) -> Any:
    count("tolist")
    return held(values).tolist()


def numpy(values: Tensor, *_: Any, **__: Any) -> Any:
    raise MixUp("numpy takes no tensor of a device")


def made(make: Callable[..., Tensor], data: Any, *args: Any, **kwargs: Any) -> Tensor:
    """A tensor of numbers, which lie on the host first."""
    where = kwargs.pop("device", None)
    found = make(data, *args, **kwargs)
    return found.to(device=where) if where is not None else found


def alone(values: Tensor) -> Tensor:
    """What a tensor holds, at the beginning of a graph of its own."""
    return held(values).detach().requires_grad_(values.requires_grad)


class Whole(torch.autograd.Function):
    """A function that is not taken apart: on what its tensors hold, with the gradient that the host has for it."""

    @staticmethod
    def forward(ctx: Any, func: Callable[..., Any], shape: Any, *leaves: Any) -> Any:
        with torch.enable_grad():
            given = [
                held(leaf).detach().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf for leaf in leaves
            ]
            args, kwargs = tree_unflatten(given, shape)
            out = func(*args, **kwargs)
        ctx.given, ctx.out = given, out
        return tree_map(lambda value: Pretended(value.detach()) if isinstance(value, Tensor) else value, out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        outs = [out for out in tree_flatten(ctx.out)[0] if isinstance(out, Tensor)]
        pairs = [(out, held(grad)) for out, grad in zip(outs, grads, strict=True) if grad is not None and out.requires_grad]
        wanted = [value for value in ctx.given if isinstance(value, Tensor) and value.requires_grad]
        found = iter(torch.autograd.grad([out for out, _ in pairs], wanted, [grad for _, grad in pairs], allow_unused=True))
        wants = [isinstance(value, Tensor) and value.requires_grad for value in ctx.given]
        return (None, None, *(wrapped(next(found)) if want else None for want in wants))


class Functions(TorchFunctionMode):
    """What does not come down to operators, or not to the same ones as on the host."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        ours = any(isinstance(value, Pretended) for value in tree_flatten((args, kwargs))[0])
        if func is Tensor.tolist and ours:
            return tolist(*args)
        if func in (Tensor.numpy, Tensor.__array__) and ours:
            return numpy(*args)
        if func in WHOLE and ours:
            check(func.__name__, args, kwargs, *sides(args, kwargs))
            leaves, shape = tree_flatten((args, kwargs))
            return Whole.apply(func, shape, *leaves)
        if func is Tensor.__setitem__ and ours:
            return set_item(*args)
        if func is Tensor.__getitem__ and ours:
            args = (args[0], tree_map(listed, args[1], is_leaf=is_list))
        if func is Tensor.new_tensor and ours:
            return made(torch.tensor, args[1], **{"dtype": args[0].dtype, "device": args[0].device} | kwargs)
        if func in (torch.tensor, torch.as_tensor) and is_ours(kwargs.get("device")):
            return made(func, *args, **kwargs)
        return func(*args, **kwargs)


def is_list(index: Any) -> bool:
    return isinstance(index, list)


def listed(index: Any) -> Any:
    """An index as torch would take it; numbers in a list lie on the host."""
    return torch.tensor(index, dtype=None if index else torch.long) if is_list(index) else index


def set_item(of: Tensor, index: Any, value: Any) -> None:
    """Write into places of a tensor; torch would make tensors on the way, which Python cannot."""
    number = not isinstance(value, Tensor)
    if not isinstance(of, Pretended) or not (number or isinstance(value, Pretended) or value.ndim == 0):
        raise MixUp("a tensor of the host is written into one of the device, or the other way round")
    masks = [part for part in tree_flatten(index)[0] if isinstance(part, Pretended) and part.dtype is torch.bool]
    if masks and not number:  # with a number it is a fill
        count("__setitem__ by a mask")
    of.held[tree_map(held, index)] = held(value)


def sides(args: tuple, kwargs: dict) -> tuple[list[Tensor], list[Pretended]]:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    return tensors, [value for value in tensors if isinstance(value, Pretended)]
