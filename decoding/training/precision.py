"""bfloat16 where the device is quick at it; everything trained here uses it for its matrix products."""

import torch


def quick(device: torch.device) -> torch.autocast:
    """A context in which matrix products are done in bfloat16, or nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=quick_at_bfloat16(device))


def quick_at_bfloat16(device: torch.device) -> bool:
    """False on a processor without such instructions, where bfloat16 is an order slower than float32."""
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AMX"))
