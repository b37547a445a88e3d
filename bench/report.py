"""Medians, spreads and ratios of what the rounds gave, and the table."""

import math
import statistics

OURS, NATIVE = "hartvisor", "native"


class Results:
    """`figures[row][peer]` is a list with a figure for each round; lower is better in all rows."""

    def __init__(self, rows, peers, reference):
        self.rows, self.peers, self.reference = rows, peers, reference
        self.figures = {row.name: {peer: [] for peer in peers} for row in rows}
        self.checksums = {row.name: {} for row in rows}

    def add(self, peer, outcome, harts):
        special = {"boot-1": (1, outcome.boot), "boot-2": (2, outcome.boot),
                   "resident": (1, outcome.resident)}
        for row in self.rows:
            if row.name in outcome.seconds:
                self.figures[row.name][peer].append(outcome.seconds[row.name])
                self.checksums[row.name].setdefault(outcome.checksums[row.name], set()).add(peer)
            elif row.name in special:
                with_harts, figure = special[row.name]
                if with_harts == harts and figure is not None:
                    self.figures[row.name][peer].append(figure)

    def median(self, row, peer):
        figures = self.figures[row.name].get(peer)
        return statistics.median(figures) if figures else None

    def spread(self, row, peer):
        """The distance between the extremes, in percent of the median; None of a single figure."""
        figures = self.figures[row.name][peer]
        if len(figures) < 2:
            return None
        return 100 * (max(figures) - min(figures)) / statistics.median(figures)

    def speed(self, row, peer, against):
        """How many times as fast as another peer; None where one of them has no figure."""
        mine, other = self.median(row, peer), self.median(row, against)
        return other / mine if mine and other else None

    def others(self):
        return [peer for peer in self.peers if peer not in (OURS, NATIVE)]

    def against_best(self, row):
        ratios = [self.speed(row, OURS, peer) for peer in self.others()]
        return min((ratio for ratio in ratios if ratio), default=None)

    def ratios(self, row):
        """hartvisor's speed against the reference, the best of the others, and native."""
        return [self.speed(row, OURS, self.reference), self.against_best(row),
                self.speed(row, OURS, NATIVE)]

    def groups(self):
        """{group: its rows}, in the order of the table."""
        groups = {}
        for row in self.rows:
            groups.setdefault(row.group, []).append(row)
        return groups

    def disagreements(self):
        """Rows whose checksum is not the same everywhere: somebody computes wrongly."""
        for name, found in self.checksums.items():
            if len(found) > 1:
                yield name, "; ".join(f"{checksum} on {', '.join(sorted(peers))}"
                                      for checksum, peers in found.items())


def geometric_mean(numbers):
    """Of those that are there."""
    numbers = [number for number in numbers if number]
    return math.exp(statistics.fmean(map(math.log, numbers))) if numbers else None


def three_digits(number):
    if number is None:
        return "-"
    decimals = 2 - math.floor(math.log10(number)) if number > 0 else 0
    return f"{number:.{min(max(decimals, 0), 4)}f}"


def cell(results, row, peer):
    middle, spread = results.median(row, peer), results.spread(row, peer)
    return three_digits(middle) + ("     " if spread is None else f" {spread:3.0f}%")


def table(results):
    """The lines of the table."""
    width = max(12, max(map(len, results.peers)) + 2)
    reference = results.reference or "-"

    def line(name, cells, ratios):
        return (f"{name:<17}" + "".join(f"{text:>{width}}" for text in cells) + "  " +
                "".join(f"{text:>11}" for text in ratios)).rstrip()

    yield line("", results.peers, [f"vs {reference.split()[0]}", "vs best", "vs native"])
    for group, rows in results.groups().items():
        yield group
        for row in rows:
            unit = "" if row.unit == "s" else f", {row.unit}"
            yield line(f"  {row.name}{unit}", [cell(results, row, peer) for peer in results.peers],
                       map(three_digits, results.ratios(row)))
        if len(rows) > 1:
            means = [geometric_mean(column) for column in zip(*map(results.ratios, rows))]
            yield line("  geometric mean", [""] * len(results.peers), map(three_digits, means))
    yield ("Seconds, medians, and the spread of the rounds in percent. vs: how many times as fast "
           f"hartvisor is as {reference},")
    yield "as the best of the other machines, and as the same program on this one itself."


def as_json(results, about):
    """All figures and what follows from them, after what `about` says of the run."""
    return {
        **about,
        "reference": results.reference,
        "peers": results.peers,
        "rows": [{
            "name": row.name, "group": row.group, "unit": row.unit, "work": row.work,
            "harts": row.harts,
            "checksum": next(iter(results.checksums[row.name]), None),
            "figures": results.figures[row.name],
            "medians": {peer: results.median(row, peer) for peer in results.peers},
            "ratios": dict(zip(("reference", "best", "native"), results.ratios(row))),
        } for row in results.rows],
        "geometric_means": {
            group: dict(zip(("reference", "best", "native"),
                            (geometric_mean(column)
                             for column in zip(*map(results.ratios, rows)))))
            for group, rows in results.groups().items()},
    }
