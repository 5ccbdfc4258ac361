"""How many candidates a search tries at once, chosen by timed calls (methods: node search)."""

from collections import deque
from collections.abc import Callable, Hashable
from statistics import median
from time import perf_counter

from atlas.core.components import AnyCircuit

MOST = 16  # candidates tried at once
TRIAL = 4  # candidates of a call that is timed beside one of a single candidate
COMPARED = 3  # comparisons before one is believed; the first of all, with what a first run costs, is not used
AGAIN = 16  # places, heads or MLPs of a layer, after which the two are compared again
GAIN = 1.1  # a batch must promise so many times the decisions a second of one at a time


class Speculation:
    """Chooses how many of the next candidates of a layer are asked for at once, to have most decisions a second.

    Where a share p of candidates is removed, a batch of b brings 1 + p + ... + p^(b - 1) decisions: it counts up to the
    first that stays. It takes 1 + s (b - 1) times as long as a single candidate; s, what one more costs, is measured by
    calls of one and of several in the same layer, and is about 0 where a GPU has little to do, 1 where it is full.
    While s is not known, and wherever a batch promises too little, candidates are tried one at a time.

    ``ran``: circuits that have been run so far; a call that found some of its circuits known says nothing about time.
    ``clock``: seconds.
    """

    def __init__(self, ran: Callable[[], int], clock: Callable[[], float] = perf_counter, most: int = MOST) -> None:
        self.ran, self.clock, self.most = ran, clock, most
        self.costs: deque[float] = deque(maxlen=5)  # the last measured s
        self.removed: deque[bool] = deque(maxlen=16)  # the last decisions
        self.compared, self.places = 0, 0
        self.place: Hashable = None  # the part of a sweep that is searched
        self.alone: float | None = None  # seconds of a single candidate in it
        self.due = True  # whether the two are to be compared where that is possible next

    @property
    def share(self) -> float:
        """p, of the last decisions; one half before there are any."""
        return (sum(self.removed) + 1) / (len(self.removed) + 2)

    def promise(self, size: int) -> float:
        """Decisions a second of a batch, over those of one candidate at a time."""
        return sum(self.share**i for i in range(size)) / (1 + max(0.0, median(self.costs)) * (size - 1))

    def size(self, place: Hashable, waiting: int) -> int:
        """How many to ask for at once. ``place``: sweep, layer and kind of the first, since times differ between them;
        ``waiting``: the candidates of the layer that are left."""
        if place != self.place:
            self.place, self.alone, self.places = place, None, self.places + 1
            self.due = self.due or self.compared <= COMPARED or self.places % AGAIN == 0  # until it is done
        best = 1
        if self.compared > COMPARED:
            best = max(range(1, min(waiting, self.most) + 1), key=self.promise)
            best = best if self.promise(best) > GAIN else 1
        if not self.due:
            return best
        return 1 if self.alone is None else min(waiting, best if best > 1 else TRIAL)

    def timed(self, percents: Callable[[list[AnyCircuit]], list[float]], circuits: list[AnyCircuit]) -> list[float]:
        """``percents(circuits)``, with a look at the clock before and after."""
        before, start = self.ran(), self.clock()
        found = percents(circuits)
        seconds, size = self.clock() - start, len(circuits)
        if self.ran() - before != size:
            return found
        if size == 1:
            self.alone = seconds
        elif self.alone and self.due:
            self.compared, self.due = self.compared + 1, False
            if self.compared > 1:
                self.costs.append((seconds / self.alone - 1) / (size - 1))
        return found

    def decided(self, removed: bool) -> None:
        """Note a decision."""
        self.removed.append(removed)
