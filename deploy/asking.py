"""Who asks: the key and the address that a request brings, and what they count as."""

import hashlib
import secrets

from starlette.requests import HTTPConnection
from starlette.types import Scope

from decoding.limits import Pacing, limits
from decoding.runs.visitors import COOKIE, is_key, network

KEYLESS = "keyless "  # what the names of visitors without a key begin with


def key_in(scope: Scope) -> str | None:
    """The visitor's key; None if the request brings none, or something else."""
    found = HTTPConnection(scope).cookies.get(COOKIE)
    return found if is_key(found) else None


def whose(key: str | None) -> str:
    """What Streamlit knows a visitor by: their key is nobody's to tell. Whoever has none is another one with each connection, or
    all of them would be the same one."""
    return hashlib.sha256(key.encode()).hexdigest() if key else KEYLESS + secrets.token_hex(16)


def address_of(scope: Scope) -> str:
    """Where a request comes from; "" if nobody knows."""
    return (scope.get("client") or ("",))[0]


def counted(key: str | None, address: str) -> dict[str, Pacing]:
    """What whoever has the key, if any, at an address counts as, and what each may do: empty on a server without limits."""
    rules = limits()
    wanted = {f"address {network(address)}": rules.address} | ({f"visitor {key}": rules.visitor} if key else {})
    return {name: rule for name, rule in wanted.items() if rule is not None}
