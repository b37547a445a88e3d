"""The benchmark's programs give the same results natively and in a guest, and it reports them."""

import hashlib
import json
import pathlib
import sys
import xml.etree.ElementTree
import zlib

from guest import GuestTest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "bench"))

import chart  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
from programs import Programs, Row  # noqa: E402


def random_bytes(state, count):
    """The bytes that digest.c digests."""
    out = bytearray()
    for _ in range(count):
        state ^= state << 13 & (1 << 64) - 1
        state ^= state >> 7
        state ^= state << 17 & (1 << 64) - 1
        out.append(state >> 40 & 255)
    return bytes(out)


class Bench(GuestTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.programs = Programs(cls.class_folder)
        cls.rows = cls.programs.rows()
        found = [peers.Native(cls.programs), peers.hartvisor(cls.programs)]
        cls.results, cls.wrong = run.measure(found, cls.rows, 1, quick=True, reference="native")

    def test_results_are_the_same(self):
        self.assertEqual(self.wrong, [])
        for row in self.rows:
            with self.subTest(row=row.name):
                self.assertEqual(len(self.results.figures[row.name]["hartvisor"]), 1)
                if row.work:
                    self.assertEqual(list(self.results.checksums[row.name].values()),
                                     [{"native", "hartvisor"}])

    def test_digests_are_right(self):
        data = random_bytes(5, 1 << 20)
        expected = {"sha256": hashlib.sha256(data).hexdigest()[:16],
                    "crc32": f"{zlib.crc32(data):016x}", "fib": f"{987:016x}"}
        for name, checksum in expected.items():
            self.assertEqual(list(self.results.checksums[name]), [checksum])

    def test_report(self):
        lines = list(report.table(self.results))
        for row in self.rows:
            self.assertTrue(any(line.startswith(f"  {row.name}") for line in lines), row.name)
        data = json.loads(json.dumps(report.as_json(self.results, {"machine": "any"})))
        self.assertEqual([row["name"] for row in data["rows"]], [row.name for row in self.rows])
        picture = xml.etree.ElementTree.fromstring(chart.svg(self.results, "A & B", "<1>"))
        labels = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("sha256", labels)
        self.assertIn("A & B", labels)


class Peers(GuestTest):
    """What goes wrong is said, and by whom."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.programs = Programs(cls.class_folder)

    def test_peer_that_does_not_boot(self):
        dead = peers.custom("dead=sh -c 'echo {harts} is all; exit 3'", self.programs)
        results, wrong = run.measure([dead], [Row("boot-1", "boot")], 2)
        self.assertEqual(len(wrong), 1)
        for part in ("dead, 1 hart", "1 is all"):
            self.assertIn(part, wrong[0])
        self.assertIn("-", list(report.table(results))[2])

    def test_peers_that_cannot_be(self):
        for text, part in (("no-command", "NAME=COMMAND"), ("x=y {disk}", "{kernel}")):
            with self.assertRaises(peers.Failure) as caught:
                peers.custom(text, self.programs)
            self.assertIn(part, str(caught.exception))
        with self.assertRaisesRegex(peers.Failure, "/nowhere/qemu"):
            peers.qemu("/nowhere/qemu", self.programs)
        with self.assertRaisesRegex(peers.Failure, "is it the right program"):
            peers.qemu("true", self.programs)

    def test_unknown_row(self):
        with self.assertRaisesRegex(peers.Failure, "no row or group warp"):
            run.select(self.programs.rows(), ["warp"])

    def test_results_that_differ(self):
        row = Row("fib", "integer", work="1 argument")
        results = report.Results([row], ["a", "b"], "a")
        for peer, checksum in (("a", "01"), ("b", "02")):
            outcome = peers.Outcome()
            outcome.add(f"fib 1.0 {checksum:0>16}")
            results.add(peer, outcome, 1)
        (name, what), = results.disagreements()
        self.assertEqual(name, "fib")
        self.assertIn("on b", what)

    def test_ratios(self):
        row = Row("fib", "integer", work="1 argument")
        results = report.Results([row], ["native", "hartvisor", "QEMU", "other"], "QEMU")
        figures = {"native": [1, 1], "hartvisor": [2, 2], "QEMU": [8, 8], "other": [3, 5]}
        results.figures["fib"] = figures
        self.assertEqual(results.ratios(row), [4, 2, 0.5])
        self.assertEqual(results.spread(row, "other"), 50)
        self.assertAlmostEqual(report.geometric_mean([2, 8, None]), 4)
