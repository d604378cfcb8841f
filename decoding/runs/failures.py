"""What went wrong, in a sentence: for a page, a study or the evaluation, which go on with the next run."""

from decoding.models.panics import is_panic


def sentence(error: BaseException) -> str:
    """Of whatever a run raised; a ValueError is a sentence already."""
    import torch  # not at the top: a page that shows a recorded run does without it

    if is_panic(error):
        return f"A library broke over what it was given: {error}"
    if isinstance(error, MemoryError):
        return "This machine is out of memory. Lower the token limit or the tree size, or choose a smaller model."
    if isinstance(error, torch.OutOfMemoryError):
        return "The device is out of memory. Lower the token limit or the tree size, or choose a smaller model."
    return str(error) if isinstance(error, ValueError) else f"The step failed: {type(error).__name__}: {error}"
