"""What an hour, or a day, of a key looks like beside four weeks of its own and beside its peers. Pure; figures in here.

A season wants the same hour of the week; peers are keys of one organisation that mostly call the same model.
"""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

KINDS = ("off_season", "unlike_peers")
SEASON_MADS = 6
"""Beyond the median by so many median deviations ..."""
LEAST_BAND_PCT = 50
"""... which count as half of the median at least: a scale of nothing makes everything strange."""
SEASON_PEAK_PCT = 150
"""And beyond the highest of the four weeks by half of it."""
SEASON_WEEKS = 3
"""So many of the four weeks had calls at all."""
FLOOR_NANO = 5 * 10**9
"""Beyond what was usual by 5 USD, as a spend spike's hour: below it nobody is called."""
PEERS = 5
PEER_FACTOR = 5
"""So many times the median of its peers, for a call ..."""
OWN_FACTOR = 2
"""... and twice its own of four weeks: who always was dearer stays who he is."""
_MAD_TO_DEVIATION_PCT = 148


class Season(NamedTuple):
    """Amounts in nano-USD."""

    usual_nano: int
    threshold_nano: int


class Peer(NamedTuple):
    """A key's last day and its four weeks before. Costs are nano-USD of calls with a known price."""

    name: str
    cost_nano: int
    calls: int
    past_cost_nano: int
    past_calls: int

    @property
    def per_call_nano(self) -> int:
        return self.cost_nano // self.calls if self.calls else 0


class Unlike(NamedTuple):
    """A key whose calls are far dearer than those of its peers."""

    peer: Peer
    peers_per_call_nano: int
    peers: int


def off_season(cost_nano: int, past: Sequence[int], weeks: int) -> Season | None:
    """Return what was usual of an hour that is beyond its season, None for one that is not.

    `past`: the same hour of the week and both its neighbours in each of the four weeks before, twelve amounts, 0 for
    hours without calls. `weeks`: how many of these weeks had any call of the key.
    """
    if weeks < SEASON_WEEKS:
        return None
    usual = int(median(past))
    spread = int(median(abs(amount - usual) for amount in past)) * _MAD_TO_DEVIATION_PCT // 100
    band = max(spread, usual * LEAST_BAND_PCT // 100)
    threshold = max(usual + SEASON_MADS * band, max(past) * SEASON_PEAK_PCT // 100, usual + FLOOR_NANO)
    return Season(usual, threshold) if cost_nano > threshold else None


def unlike_peers(group: Sequence[Peer]) -> list[Unlike]:
    """Return the keys of a peer group that are unlike the others."""
    found = []
    for one in group:
        others = [peer.per_call_nano for peer in group if peer is not one and peer.calls]
        if len(others) < PEERS or not one.calls:
            continue
        usual = int(median(others))
        own = one.past_cost_nano // one.past_calls if one.past_calls else 0
        beyond = one.cost_nano - usual * one.calls
        far = usual > 0 and one.per_call_nano >= PEER_FACTOR * usual
        if far and beyond >= FLOOR_NANO and (own == 0 or one.per_call_nano >= OWN_FACTOR * own):
            found.append(Unlike(one, usual, len(others)))
    return found
