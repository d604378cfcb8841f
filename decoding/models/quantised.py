"""Quantised folders: opened where transformers opens them on this machine, else refused by the format and what is lacking.

What can be read as plain numbers is (FP8, MXFP4): such a model runs everywhere, and no kernel is fetched for it. Formats that are
nothing without kernels from the Hub are refused: those are code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import transformers
from transformers import PreTrainedConfig

# quant_method -> the format's name, and the packages that transformers opens it with: module -> what to install
FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    "aqlm": ("AQLM", {"aqlm": "aqlm[cpu,gpu]"}),
    "auto-round": ("AutoRound", {"auto_round": "auto-round"}),
    "awq": ("AWQ", {"gptqmodel": "gptqmodel"}),
    "bitnet": ("BitNet", {}),
    "bitsandbytes": ("bitsandbytes", {"bitsandbytes": "bitsandbytes"}),
    "compressed-tensors": ("compressed-tensors", {"compressed_tensors": "compressed-tensors"}),
    "fbgemm_fp8": ("FP8 of FBGEMM", {"fbgemm_gpu": "fbgemm-gpu"}),
    "fp8": ("FP8", {}),
    "fp_quant": ("FP-Quant", {"fp_quant": "fp_quant"}),
    "gptq": ("GPTQ", {"gptqmodel": "gptqmodel", "optimum": "optimum"}),
    "higgs": ("HIGGS", {"flute": "flute-kernel"}),
    "hqq": ("HQQ", {"hqq": "hqq"}),
    "mxfp4": ("MXFP4", {}),
    "mxfp8": ("MXFP8", {}),
    "quanto": ("Quanto", {"optimum.quanto": "optimum-quanto"}),
    "quark": ("Quark", {"quark": "amd-quark"}),
    "spqr": ("SpQR", {"spqr_quant": "spqr_quant"}),
    "torchao": ("torchao", {"torchao": "torchao"}),
    "vptq": ("VPTQ", {"vptq": "vptq"}),
}
ACCELERATE = {"accelerate": "accelerate"}  # which all of them need
PLAIN = ("fp8", "mxfp8", "mxfp4")  # their numbers can be read as plain ones
FETCHED = ("eetq", "metal", "nvfp4")  # kernels from the Hub


def method_of(config: PreTrainedConfig) -> str:
    """What config.json calls the format; "" if the model is not quantised."""
    said = getattr(config, "quantization_config", None)
    method = said.get("quant_method") if isinstance(said, dict) else None
    return str(method) if said and method else "unknown" if said else ""


@contextmanager
def opening_quantised(config: PreTrainedConfig) -> Iterator[None]:
    """Whatever transformers raises about a quantised model, as one sentence that names its format (ValueError)."""
    method = method_of(config)
    if method in PLAIN:
        config.quantization_config["dequantize"] = True
    if method in FETCHED:
        raise ValueError(f"it is quantised ({method}), which runs with code that is fetched from the Hub only.")
    try:
        yield
    except Exception as error:
        if not method:
            raise
        raise ValueError(sentence(method, error)) from error


def sentence(method: str, error: Exception) -> str:
    """What is lacking for a format, or what transformers said."""
    name, packages = FORMATS.get(method, (method, {}))
    lacking = [package for module, package in (packages | ACCELERATE).items() if not there(module)]
    if method in FORMATS and lacking:
        what, verb, them = ("package", "is", "it") if len(lacking) == 1 else ("packages", "are", "them")
        return (
            f"it is quantised ({name}), for which the {what} {' and '.join(lacking)} {verb} lacking here. Install {them}, or take "
            "the model in float16 or bfloat16."
        )
    said: Any = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"it is quantised ({name}), and transformers {transformers.__version__} does not open that here: {said}"


def there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # what it lies in is not there either
        return False


def note(source: str, config: PreTrainedConfig, dtype: str) -> tuple[str, ...]:
    """A sentence for a model whose numbers were made plain ones."""
    method = method_of(config)
    if method not in PLAIN:
        return ()
    name, _ = FORMATS[method]
    return (f"{source!r} is stored in {name}; it was opened as plain numbers ({dtype}) and takes the memory of those.",)
