"""The one check of a whole number that comes from outside: settings of heads, limits of runs."""


def check_int(what: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number from low to high (ValueError)."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} {value!r} cannot be; {low} to {high:,} can.")
