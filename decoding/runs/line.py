"""The line before a device: whose step comes next, and how many come before one's own.

It is start-time fair queueing (Goyal et al. 1996), in two levels. Everybody has an account of the seconds that their steps took,
and the smallest account comes next: first of the networks, then in that network of its owners, and among the runs of one owner it
goes round. Whoever comes anew starts where the one stands who is served, so they wait for one step at most, and the time before
they came is nobody's credit or debt. So large steps get fewer turns than small ones, and both the same time.

Who wants little is not to wait for a round of all others' large steps after each small one of theirs: of every second in which they
want nothing a tenth is taken off what they had.

A network is all owners at one address. It has as many shares as it has busy owners, but no more than it may: a class behind one
address gets more than one visitor, and whoever throws the key away, and is a new owner each time, gets no more than the address
does. Of several such networks each has fewer shares (`TOGETHER`), the more of its owners are busy the more of them: with as many
as they like, ten of them left everybody else one turn in forty, and a class of thirty is more than two at each of ten addresses.
Their turns come one by one between those of others, and not all of them before.

Of those who come anew nobody knows how long their turns are. Ten that come with large trees on a large model had their first turns
before a class that came behind them; so who is likely to take long (`expected`) comes behind who is not, for a while (`BEHIND`).
"""

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Protocol, TypeVar

BEHIND = 5.0  # seconds for which somebody may be behind others who came later, and whose first turn is likely to be shorter
LITTLE = 0.1  # of the device's time, which anybody may have now and then without waiting for others' rounds

TOGETHER = 8  # shares of all networks that have several busy owners, parts of one rounded up for each


@dataclass(frozen=True)
class Owner:
    """Whose runs they are: all runs of one owner together get one share of the device's time."""

    key: Hashable = ""
    at_once: int | None = None  # groups of runs that take turns, the others wait until one has nothing to do; None: all
    near: Hashable = None  # where they are; None: nowhere, or nobody knows
    shares: int | None = None  # that all owners there have together, when more of them are busy; None: one each

    @property
    def network(self) -> Hashable:
        """Whose owners share an account; without such a limit they do with nobody."""
        return ("owner", self.key) if self.near is None or self.shares is None else ("network", self.near)


NOBODY = Owner()


class Waiting(Protocol):
    """A run that may stand in line; the worker's is one."""

    owner: Owner
    group: Hashable

    @property
    def expected(self) -> float:
        """Seconds that a turn of such a run takes, as far as is known."""
        ...

    @property
    def wanted(self) -> float:
        """Steps still to take."""
        ...


@dataclass(eq=False)
class Account:
    """What somebody had of the device."""

    used: float  # seconds, from where they came to the line
    since: int = 0  # number of the moment since which they wait
    last: float = 0.0  # seconds of their last turn; 0: none yet
    left: float = 0.0  # when they last wanted nothing more
    joined: float = 0.0  # when they came to the line

    @property
    def first(self) -> float:
        """Seconds that their first turn is likely to take."""
        return 0.0

    @property
    def usual(self) -> float:
        """Seconds of a turn."""
        return self.last

    def come(self, at: float) -> None:
        """They want something again."""
        self.used -= LITTLE * (at - self.left)

    def join(self, level: float, moment: int, at: float) -> None:
        """They come to the line, whose smallest account stands so."""
        self.used, self.since, self.joined = max(self.used, level), moment, at

    def comes(self, at: float) -> tuple[float, int]:
        """The smaller, the sooner."""
        return self.used + (self.first if not self.last and at - self.joined < BEHIND else 0.0), self.since

    def charge(self, seconds: float, moment: int) -> None:
        self.used, self.last, self.since = self.used + seconds, seconds, moment

    def turns(self, until: float, since: int, wanted: float, now: bool) -> int:
        """Turns that they get before somebody whose account stands at `until` seconds and who waits since the moment `since`.

        Args:
            wanted: turns that they want.
            now: they have a turn now, which is not counted.
        """
        used = self.used + self.last * now
        if used > until or (used == until and (now or self.since > since)):
            return 0
        many = math.ceil((until - used) / self.usual) if self.usual else 1
        return int(max(0, min(max(1, many), wanted)))


@dataclass(eq=False)
class Share(Account):
    """An owner's account, and what of theirs wants more."""

    owner: Owner = NOBODY
    busy: dict[Waiting, None] = field(default_factory=dict)  # in line or at work, in the order in which they were asked
    waiting: deque[Waiting] = field(default_factory=deque)  # those in line

    @property
    def free(self) -> list[Waiting]:
        """Those in line that may take turns."""
        groups = self.groups
        return [run for run in self.waiting if run.group in groups]

    @property
    def first(self) -> float:
        return self.free[0].expected

    @property
    def groups(self) -> set[Hashable]:
        """Whose runs may take turns: those that were asked first."""
        return set(list(dict.fromkeys(run.group for run in self.busy))[: self.owner.at_once])

    def serves(self, now: Waiting | None) -> bool:
        """Whether it is one of its runs that has a turn."""
        return now is not None and now in self.busy

    def wanted(self, now: Waiting | None) -> float:
        """Turns that its runs want beside the one that `now` has."""
        return sum(run.wanted for run in self.free) + (now.wanted - 1 if now is not None and self.serves(now) else 0)


@dataclass(eq=False)
class Network(Account):
    """The account of all owners at one place together, and theirs."""

    shares: dict[Hashable, Share] = field(default_factory=dict)  # of owners who are busy, or had more than others
    level: float = 0.0  # where the share stood that was served last: the others do not stand below
    most: int = TOGETHER  # shares of the device that it may have now

    @property
    def owners(self) -> int:
        """How many of them are busy."""
        return sum(bool(share.busy) for share in self.shares.values())

    @property
    def several(self) -> bool:
        return self.owners > 1

    @property
    def busy(self) -> bool:
        return any(share.busy for share in self.shares.values())

    @property
    def free(self) -> bool:
        return any(share.free for share in self.shares.values())

    @property
    def first(self) -> float:
        return min(share.first for share in self.shares.values() if share.free)

    @property
    def weight(self) -> int:
        """Shares of the device that it has."""
        busy = [share.owner for share in self.shares.values() if share.busy]
        return max(1, min(len(busy), self.most, *(owner.shares or 1 for owner in busy))) if busy else 1

    @property
    def usual(self) -> float:
        """As all get the same time, whoever takes short turns has many of them."""
        each = [share.last for share in self.shares.values() if share.busy and share.last]
        return len(each) / sum(1 / seconds for seconds in each) / self.weight if each else self.last

    def wanted(self, now: Waiting | None) -> float:
        return sum(share.wanted(now) for share in self.shares.values())

    def serves(self, now: Waiting | None) -> bool:
        return any(share.serves(now) for share in self.shares.values())


A = TypeVar("A", Share, Network)


class Line:
    """Those who wait. Whoever uses it sees to it that one thread at a time does."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._networks: dict[Hashable, Network] = {}
        self._level = 0.0  # where the network stood that was served last
        self._moments = count(1)

    def enter(self, run: Waiting, first: bool = False) -> None:
        """A run comes to the end of its owner's, or to the beginning."""
        network = self._networks.setdefault(run.owner.network, Network(self._level))
        share = network.shares.setdefault(run.owner.key, Share(network.level))
        share.owner, moment = run.owner, next(self._moments)
        if not share.busy:
            share.come(self._clock())
            if not network.busy:
                network.come(self._clock())
        if not network.free:
            network.join(self._level, moment, self._clock())
        if not share.free:
            share.join(network.level, moment, self._clock())
        share.busy.setdefault(run)
        share.waiting.insert(0 if first else len(share.waiting), run)

    def leave(self, run: Waiting) -> None:
        """It wants no more turns."""
        share = self._share(run)
        if share is not None and run in share.busy:
            del share.busy[run]
            if run in share.waiting:
                share.waiting.remove(run)
            if not share.busy:
                share.left = self._clock()
                network = self._networks[run.owner.network]
                network.left = network.left if network.busy else share.left

    def stands(self, run: Waiting) -> bool:
        """Whether it waits."""
        share = self._share(run)
        return share is not None and run in share.waiting

    def held(self, run: Waiting) -> bool:
        """Whether it waits, and gets no turn before another run of its owner has nothing more to do."""
        share = self._share(run)
        return share is not None and run in share.waiting and run.group not in share.groups

    def next(self) -> Waiting | None:
        """Whose turn it is: of those who had least the one who waits longest."""
        networks = [network for network in self._networks.values() if network.free]
        if not networks:
            return None
        at = self._clock()
        shares = [share for share in min(networks, key=lambda one: one.comes(at)).shares.values() if share.free]
        return min(shares, key=lambda one: one.comes(at)).free[0]

    def begin(self, run: Waiting) -> None:
        """It has a turn now, and is out of the line."""
        network = self._networks[run.owner.network]
        share = network.shares[run.owner.key]
        share.waiting.remove(run)
        network.used = self._level = max(network.used, self._level)
        share.used = network.level = max(share.used, network.level)

    def end(self, run: Waiting, seconds: float) -> None:
        """Its turn took so long. Accounts that tell nothing are forgotten."""
        network, moment = self._networks[run.owner.network], next(self._moments)
        self._weigh()
        network.charge(seconds / network.weight, moment)
        network.shares[run.owner.key].charge(seconds, moment)
        for one in self._networks.values():
            one.level = settled(one.shares.values(), one.level, one.free)
            one.shares = {key: share for key, share in one.shares.items() if share.busy or share.used > one.level}
        self._level = settled(self._networks.values(), self._level, self.next() is not None)
        self._networks = {key: one for key, one in self._networks.items() if one.shares or one.used > self._level}

    def place(self, run: Waiting, now: Waiting | None) -> int:
        """How many turns come first, if each takes as long as the last one of its owner did; 0 if it does not stand in line, or is
        held.

        Args:
            now: the run that has a turn.
        """
        share = self._share(run)
        if share is None or run not in (free := share.free):
            return 0
        self._weigh()
        network, ahead = self._networks[run.owner.network], free.index(run)
        own = ahead + share.serves(now)
        before = turns_before(share, share.used + share.last * own, network.shares.values(), now)
        taken = own * share.last + sum(turns * other.last for other, turns in before)
        if now is not None and network.serves(now) and not share.serves(now):
            taken += network.shares[now.owner.key].last
        others = turns_before(network, network.used + taken / network.weight, self._networks.values(), now)
        return (now is not None) + ahead + sum(turns for _, turns in [*before, *others])

    def _weigh(self) -> None:
        """Say how many shares networks have now."""
        several = [network for network in self._networks.values() if network.several]
        crowd = sum(network.owners for network in several)
        for network in several:
            network.most = math.ceil(TOGETHER * network.owners / crowd)

    def _share(self, run: Waiting) -> Share | None:
        network = self._networks.get(run.owner.network)
        return None if network is None else network.shares.get(run.owner.key)


def turns_before(mine: A, until: float, all_: Iterable[A], now: Waiting | None) -> list[tuple[A, int]]:
    """The turns of each other account before the owner of `mine` has one, whose account stands at `until` seconds then."""
    return [(one, one.turns(until, mine.since, one.wanted(now), one.serves(now))) for one in all_ if one is not mine]


def settled(accounts: Iterable[Account], level: float, waiting: bool) -> float:
    """The level of accounts: where nobody waits, nobody owes anything to anybody."""
    if waiting:
        return level
    for account in accounts:
        account.used = 0.0
    return 0.0
