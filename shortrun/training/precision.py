"""The precision of matrix products while a model learns."""

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which an update computes; precision: float32, bfloat16 or auto."""
    return torch.autocast(device.type, torch.bfloat16, enabled=half_precision(precision, device))


def half_precision(precision: str, device: torch.device) -> bool:
    """Return whether matrix products are to be in bfloat16: auto says yes where the machine has instructions for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch has no public question for this; where the private one is gone, float32 is the safe answer
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())
