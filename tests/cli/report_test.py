"""The report, the sweep and the doctor as their users meet them: a page that parses, loads nothing,
shows hostile names as text and says what verification said."""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

import tiny_model
from tiny_model import sluice

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Elements, ids and the text of a page; complains about anything left open."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.classes, self.counts, self.attributes = [], [], [], {}, []
        self.text, self.scripts = "", []
        self.source = pathlib.Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.attributes += [(tag, *pair) for pair in attributes]
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name == "class":
                self.classes += value.split()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.text += data + " "


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="sluice-report-")
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.model = tiny_model.make_model(cls.folder / "model", layers=3)
        cls.out = cls.fit("out", "5")

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def fit(cls, name, bits, model=None):
        out = cls.folder / name
        sluice("fit", model or cls.model, "--bpw", bits, "-o", out, "--best", "none")
        return out

    def report(self, path, *options):
        page = self.folder / (self.id().split(".")[-1] + ".html")
        sluice("report", path, "-o", page, *options)
        return Page(page)

    def check_page(self, page):
        self.assertEqual(len(page.ids), len(set(page.ids)))
        self.assertEqual(page.counts["script"], 1)
        for tag, name, value in page.attributes:
            self.assertNotIn(name, ("src", "srcset", "onload", "onerror", "onclick", "action"))
            if name == "href":
                self.assertEqual(value, "data:,", tag)
        self.assertIsNone(re.search(r"https?:|url\(|@import|fetch\(|innerHTML", page.source))

    def test_page_of_an_output(self):
        page = self.report(self.out)
        self.check_page(page)
        for section in ("curve", "map", "formats", "error", "roles", "verification", "run",
                        "origin", "modules"):
            self.assertIn(section, page.ids)
        # Seven roles in three layers, embedding, head, and one cell for all norms.
        self.assertEqual(page.classes.count("cell"), 7 * 3 + 3)
        self.assertEqual(page.classes.count("panel"), 8)
        self.assertIn("passed", page.text)
        self.assertIn("model.layers.2.mlp.down_proj.weight", page.text)
        self.assertIn(f"sluice fit {self.model}", page.text)  # from run.json

    def test_page_inside_the_output_has_no_times(self):
        page = Page(self.out / "report.html")
        self.check_page(page)
        self.assertNotIn("run", page.ids)
        self.assertNotIn(str(self.folder), page.source)
        again = self.fit("again", "5")
        self.assertEqual(tiny_model.files_of(self.out), tiny_model.files_of(again))

    def test_script_is_javascript(self):
        node = shutil.which("node")
        if node is None:
            self.skipTest("node is not installed")
        script = self.folder / "page.js"
        script.write_text("".join(self.report(self.out).scripts))
        subprocess.run([node, "--check", script], check=True)

    def test_hostile_names_stay_text(self):
        name = "\"><img src=x onerror=alert(1)><script>'"
        model = tiny_model.make_model(self.folder / name)
        out = self.fit("hostile", "6", model)
        page = self.report(out, "--name", "</title><script>alert(2)</script>")
        self.check_page(page)
        self.assertNotIn("img", page.counts)
        self.assertIn("onerror=alert(1)", page.text)
        self.assertIn("alert(2)", page.text)

    def test_page_of_an_analysis_and_of_a_plan(self):
        analysis = self.out / "analysis.jsonl"
        page = self.report(analysis)
        self.check_page(page)
        self.assertIn("curve", page.ids)
        self.assertNotIn("verification", page.ids)
        plan = self.folder / "plan.json"
        sluice("plan", analysis, "--bpw", "6", "-o", plan)
        page = self.report(plan)
        self.assertIn("map", page.ids)
        self.assertEqual(page.counts.get("polyline", 0), 0)  # no analysis, no curve
        page = self.report(plan, "--analysis", analysis)
        self.assertEqual(page.counts["polyline"], 2)  # wide and narrow
        other = self.folder / "other.analysis"
        sluice("analyze", self.model, "-o", other, "--best", "all")
        result = sluice("report", plan, "--analysis", other, "-o", self.folder / "x.html", expect=3)
        self.assertIn("not the one", result.stderr)

    def test_bad_inputs(self):
        nothing = self.folder / "nothing.html"
        for path, code in ((self.folder / "absent", 3), (self.model, 3),
                           (self.model / "config.json", 3)):
            result = sluice("report", path, "-o", nothing, expect=code)
            self.assertEqual(result.stdout, "")
            self.assertFalse(nothing.exists())
        damaged = self.folder / "damaged"
        shutil.copytree(self.out, damaged)
        for text in ('{"passed": true}',
                     (damaged / "verify.json").read_text().replace('"modules": ', '"modules": 1')):
            (damaged / "verify.json").write_text(text)
            result = sluice("report", damaged, "-o", nothing, expect=3)
            self.assertIn("verify.json", result.stderr)
            self.assertFalse(nothing.exists())

    def test_recorded_verification(self):
        out = self.folder / "bad"
        shutil.copytree(self.out, out)
        weights = out / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-100] ^= 1
        weights.write_bytes(data)
        sluice("verify", self.model, out, expect=1)
        self.assertTrue(json.loads((out / "verify.json").read_text())["passed"])
        sluice("verify", self.model, out, "--record", expect=1)
        self.assertFalse(json.loads((out / "verify.json").read_text())["passed"])
        page = self.report(out)
        self.assertIn("FAILED with", page.text)
        self.assertNotIn("good", page.classes)
        # The output itself may carry all its records into verification.
        sluice("verify", self.model, self.out)

    def test_verification_of_another_output_is_out_of_date(self):
        out = self.fit("wider", "7")
        shutil.copy(self.out / "verify.json", out / "verify.json")
        self.assertIn("out of date", self.report(out).text)

    def test_what_to_watch(self):
        analysis = self.out / "analysis.jsonl"
        # Six bits come to about 36 dB.
        for floor, warned in (("9", False), ("35", True)):
            plan = ("plan", analysis, "--min-safe", "--configs", "6/64,16-bit",
                    "--sqnr-floor", floor)
            safety = json.loads(sluice(*plan, "--json").stdout)["summary"]["safety"]
            self.assertEqual(safety["floor_db"], float(floor))
            self.assertEqual(safety["near_floor_count"] > 0, warned)
            self.assertEqual(safety["weak_experts"], [])
            text = sluice(*plan).stdout
            self.assertEqual("  warning: model." in text, warned)
            self.assertEqual("No module within 3 dB of the floor" in text, not warned)
        record = json.loads((self.out / "verify.json").read_text())
        self.assertGreater(record["directions_measured"], 0)
        self.assertIn("safety", self.report(self.out).ids)

    def test_sweep(self):
        analysis = self.out / "analysis.jsonl"
        sweep = json.loads(sluice("plan", analysis, "--sweep", "--json").stdout)
        self.assertEqual(len(sweep["curve"]), 50)
        self.assertGreaterEqual(len(sweep["uniform"]), 18)
        svg = self.folder / "curve.svg"
        sluice("plan", analysis, "--sweep", "-o", svg)
        root = xml.etree.ElementTree.parse(svg).getroot()
        self.assertTrue(root.tag.endswith("svg"))
        page = self.folder / "sweep.html"
        sluice("plan", analysis, "--sweep", "-o", page)
        self.check_page(Page(page))

    def test_doctor(self):
        folder = self.folder / "disk"
        folder.mkdir()
        found = json.loads(sluice("doctor", folder, self.folder / "absent", "--json").stdout)
        self.assertGreater(found["cores"], 0)
        self.assertGreater(found["memory"]["total_bytes"], 0)
        self.assertGreater(found["pricing_weights_per_s"], 0)
        disk, absent = found["disks"]
        self.assertGreater(disk["read_bytes_per_s"], 0)
        self.assertTrue(disk["file_was_written"])
        self.assertEqual(list(folder.iterdir()), [])  # and removed
        self.assertIn("absent", absent["error"])
        self.assertTrue(any("absent" in warning for warning in found["warnings"]))
        self.assertIn("disk at", sluice("doctor", folder).stdout)


if __name__ == "__main__":
    unittest.main()
