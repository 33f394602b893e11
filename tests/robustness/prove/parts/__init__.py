"""The parts of ``make prove``: each runs within its share of the time and reports figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from robustness.prove.parts import cluster, crashes, disks, histories, model, mutants, network, servers, soaking
from robustness.prove.parts.figures import Figures, Share


@dataclass(frozen=True)
class Part:
    """One part. ``needs``: seconds that it takes whatever its share; the rest is shared out by ``weight``."""

    run: Callable[[Share, Figures], None]
    needs: float
    weight: float = 0.0


PARTS: Mapping[str, Part] = {
    "histories": Part(histories.run, needs=20, weight=3),
    "cluster": Part(cluster.run, needs=60, weight=2),
    "model": Part(model.run, needs=60, weight=1),
    "mutants": Part(mutants.run, needs=150),
    "crashes": Part(crashes.run, needs=40, weight=4),
    "io": Part(disks.run, needs=40, weight=1),
    "network": Part(network.run, needs=300),
    "servers": Part(servers.run, needs=150),
    "soak": Part(soaking.run, needs=30, weight=1),
}


def shares(names: Sequence[str], seconds: float) -> dict[str, float]:
    """Seconds for each part: what it needs, and by weight what is left of the whole then."""
    chosen = {name: PARTS[name] for name in names}
    left = max(0.0, seconds - sum(part.needs for part in chosen.values()))
    weights = sum(part.weight for part in chosen.values()) or 1.0
    return {name: part.needs + left * part.weight / weights for name, part in chosen.items()}


__all__ = ["PARTS", "Figures", "Part", "Share", "shares"]
