"""Panics: what a library in Rust raises when what it was given breaks it: no Exception to Python, and yet no reason to end."""

PANIC = "PanicException"  # the class has no place that it could be imported from


def is_panic(error: BaseException) -> bool:
    return type(error).__name__ == PANIC
