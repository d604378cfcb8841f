"""What is wrong with what comes from outside: the one check of a whole number, and the error that quotes who asked."""


class Quoted(ValueError):
    """The sentence quotes what the user wrote, and says nothing else of this machine: they may see it, whatever it looks like."""


def check_int(what: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number from low to high (ValueError)."""
    if type(value) is not int or not low <= value <= high:
        raise Quoted(f"{what} {value!r} cannot be; {low} to {high:,} can.")
