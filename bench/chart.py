"""A bar chart of speeds as an SVG file: one bar for each row and machine, from 1 to its factor."""

import math
from xml.sax.saxutils import escape

LABELS, PLOT, FIGURES, MARGIN = 118, 560, 64, 20
BAR, GAP, ROW_GAP, GROUP_GAP = 8, 2, 9, 30
TOP, FOOT = 104, 40
WIDTH = MARGIN + LABELS + PLOT + FIGURES + MARGIN

# Light and dark; the first is hartvisor's, the others follow in the order of the peers.
COLOURS = [("#2563eb", "#6ea1ff"), ("#f59e0b", "#f5b544"), ("#8b98a9", "#75818f"),
           ("#10b981", "#34d399"), ("#c084fc", "#b58af0"), ("#f472b6", "#f08dbf")]

STYLE = """
    text { font: 12px system-ui, sans-serif; fill: #1f2933 }
    .title { font-size: 16px; font-weight: 600 }
    .group { font-weight: 600 }
    .small { font-size: 11px; fill: #5b6773 }
    .grid { stroke: #d5dbe1 }
    .one { stroke: #1f2933; stroke-width: 1.5 }
    .native { fill: none; stroke: #1f2933; stroke-width: 1.5 }
"""
DARK_STYLE = """
        text { fill: #e4e9ee }
        .small { fill: #a3afba }
        .grid { stroke: #3a444e }
        .one { stroke: #e4e9ee }
        .native { stroke: #e4e9ee }
"""


class Axis:
    """Logarithmic, over whole powers of two around all values."""

    def __init__(self, values, left):
        low, high = min([*values, 0.5]), max([*values, 2])
        self.first, self.last = math.floor(math.log2(low)), math.ceil(math.log2(high))
        self.left = left

    def x(self, value):
        place = (math.log2(value) - self.first) / (self.last - self.first)
        return round(self.left + place * PLOT, 1)

    def ticks(self):
        return [2.0 ** power for power in range(self.first, self.last + 1)]


def factor_text(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def tick_text(value):
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"


def svg(results, title, subtitle):
    """The chart's text, of the rows that both hartvisor and the reference have."""
    ours, native, reference = "hartvisor", "native", results.reference
    machines = [ours] + [peer for peer in results.others() if peer != reference]
    colours = {machine: f"c{i % len(COLOURS)}" for i, machine in enumerate(machines)}
    groups = {group: [row for row in rows
                      if row.unit == "s" and results.speed(row, ours, reference)]
              for group, rows in results.groups().items()}
    groups = {group: rows for group, rows in groups.items() if rows}
    speeds = {(row.name, peer): results.speed(row, peer, reference)
              for rows in groups.values() for row in rows for peer in [*machines, native]
              if peer in results.peers and results.speed(row, peer, reference)}
    axis = Axis(speeds.values(), MARGIN + LABELS)
    out, y = [], TOP

    def text(x, y, words, kind="", anchor="start"):
        kind = f' class="{kind}"' if kind else ""
        out.append(f'<text x="{x}" y="{y}"{kind} text-anchor="{anchor}">{escape(words)}</text>')

    for group, rows in groups.items():
        text(MARGIN, y + 12, group, "group")
        y += 22
        for row in rows:
            bars = [(machine, speeds[row.name, machine]) for machine in machines
                    if (row.name, machine) in speeds]
            height = len(bars) * (BAR + GAP) - GAP
            middle = y + height / 2
            text(MARGIN + LABELS - 10, middle + 4, row.name, anchor="end")
            for i, (machine, speed) in enumerate(bars):
                start, end = sorted((axis.x(1), axis.x(speed)))
                out.append(f'<rect class="{colours[machine]}" x="{start}" y="{y + i * (BAR + GAP)}"'
                           f' width="{max(end - start, 1):.1f}" height="{BAR}" rx="1.5">'
                           f"<title>{escape(row.name)}, {escape(machine)}: "
                           f"{factor_text(speed)}</title></rect>")
            if (row.name, native) in speeds:
                out.append(f'<circle class="native" cx="{axis.x(speeds[row.name, native])}" '
                           f'cy="{middle}" r="3.5"/>')
            text(WIDTH - MARGIN, middle + 4, f"{factor_text(speeds[row.name, ours])} ×", "small",
                 "end")
            y += height + ROW_GAP
        y += GROUP_GAP - ROW_GAP - 8
    bottom = y

    grid = []
    for tick in axis.ticks():
        x = axis.x(tick)
        grid.append(f'<line class="{"one" if tick == 1 else "grid"}" x1="{x}" y1="{TOP - 4}" '
                    f'x2="{x}" y2="{bottom}"/>')
        text(x, bottom + 16, tick_text(tick), "small", "middle")
    text(axis.x(1), TOP - 10, reference, "small", "middle")
    text(WIDTH - MARGIN, TOP - 10, ours, "small", "end")
    text(MARGIN, 26, title, "title")
    text(MARGIN, 44, subtitle, "small")
    x = MARGIN
    for machine in [*machines, *[peer for peer in results.peers if peer == native]]:
        if machine == native:
            out.append(f'<circle class="native" cx="{x + 5}" cy="64" r="3.5"/>')
        else:
            out.append(f'<rect class="{colours[machine]}" x="{x}" y="59" width="10" '
                       'height="10" rx="1.5"/>')
        text(x + 16, 68, machine)
        x += 44 + 7 * len(machine)

    light = "".join(f"    .c{i} {{ fill: {light} }}\n" for i, (light, _) in enumerate(COLOURS))
    dark = "".join(f"        .c{i} {{ fill: {dark} }}\n" for i, (_, dark) in enumerate(COLOURS))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + FOOT}" '
        f'width="{WIDTH}" height="{bottom + FOOT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}{light}    @media (prefers-color-scheme: dark) {{{DARK_STYLE}{dark}    }}\n"
        "</style>", *grid, *out, "</svg>", ""])
