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
        """The distance between the extremes, in percent of the median."""
        figures = self.figures[row.name][peer]
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
    numbers = [number for number in numbers if number]
    return math.exp(statistics.fmean(map(math.log, numbers))) if numbers else None


def three_digits(number):
    if number is None:
        return "-"
    return f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f}" if number < 100 else \
        f"{number:.0f}"


def table(results):
    """The lines of the table."""
    width = max(12, max(map(len, results.peers)) + 2)
    reference = results.reference or "-"

    def line(name, cells, ratios):
        return (f"{name:<17}" + "".join(f"{cell:>{width}}" for cell in cells) + "  " +
                "".join(f"{three_digits(ratio):>9}" for ratio in ratios)).rstrip()

    yield (f"{'':<17}" + "".join(f"{peer:>{width}}" for peer in results.peers) +
           "     vs ref  vs best vs native")
    for group, rows in results.groups().items():
        yield group
        for row in rows:
            cells = []
            for peer in results.peers:
                middle = results.median(row, peer)
                cells.append(f"{three_digits(middle)} {results.spread(row, peer):3.0f}%"
                             if middle else "-")
            unit = "" if row.unit == "s" else f", {row.unit}"
            yield line(f"  {row.name}{unit}", cells, results.ratios(row))
        if len(rows) > 1:
            means = [geometric_mean(column) for column in zip(*map(results.ratios, rows))]
            yield line("  geometric mean", [""] * len(results.peers), means)
    yield ("Seconds, medians, and the spread of the rounds in percent. vs: how many times as fast "
           f"hartvisor is as ref ({reference}),")
    yield "as the best of the others, and as the same program on this machine itself."


def as_json(results, about):
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
