"""A checkpoint on a web server, read by ranges: every command gives what it gives from a folder, byte
for byte, whatever goes wrong on the way; a changed source is an error; nothing is fetched more often
than needed.

    test_http.py SLUICE
"""

import re
import shutil
import signal
import subprocess
import time
import unittest

import support
import web
from disk_watch import DiskWatch

BUDGET = ["--bpw", "5", "--best", "none"]
# Of the report: what is looked at while the source is read.
WATCH = re.compile(rb'<section id="safety">.*?</section>\n', re.DOTALL)


class HttpTestCase(support.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.seed = support.test_seed()
        cls.site = cls.folder / "site"
        cls.model = cls.site / "model"
        support.make_checkpoint(cls.model, "llama", shards=3, seed=cls.seed, vocab_size=2048,
                                hidden_size=256, intermediate_size=512)
        (cls.model / "README.md").write_text("---\nlicense: mit\n---\n")
        cls.environment = web.clean_environment(cls.folder / "home")
        cls.local = cls.folder / "local"
        cls.run_sluice("fit", cls.model, *BUDGET, "-o", cls.local)
        cls.source_bytes = sum(path.stat().st_size for path in cls.model.iterdir())

    @classmethod
    def run_sluice(cls, *arguments, expect=0, **variables):
        command = [support.binary(), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120,
                                env={**cls.environment, **variables})
        if result.returncode != expect:
            raise AssertionError(f"{command}: exit {result.returncode}, expected {expect}\n"
                                 f"{result.stdout[-2000:]}\n{result.stderr[-2000:]}")
        return result

    def assert_same(self, out):
        """But for what says how it was verified, and when: without reading the source again, the
        directions of errors are not looked at."""
        expected, found = (web.folder_files(folder) for folder in (self.local, out))
        self.assertEqual(sorted(found), sorted(expected))
        for name in expected:
            if name == "report.html":
                for files in (expected, found):
                    files[name], count = WATCH.subn(b"", files[name])
                    self.assertEqual(count, 1)
            if name not in ("run.json", "verify.json"):
                self.assertEqual(found[name], expected[name], f"{name} differs")
        verified = [support.read_json(folder / "verify.json") for folder in (self.local, out)]
        self.assertTrue(verified[1].pop("proved_while_converting"))
        self.assertEqual(verified[1]["directions_measured"], 0)
        for record in verified:
            del record["digest"]  # of all of it
            del record["directions_measured"], record["concentrated"]
        self.assertEqual(*verified)


@unittest.skipUnless(web.Nginx.program(), "nginx is not installed; run scripts/setup test")
class NginxTest(HttpTestCase):
    def test_fit(self):
        out = self.folder / "fitted"
        with web.Nginx(self.site) as server:
            result = self.run_sluice("fit", f"{server.url}/model/", *BUDGET, "-o", out)
            self.assertTrue(all(status in (200, 206, 404) for status, _, _ in server.requests()))
        self.assert_same(out)
        self.assertIn("while they were converted", result.stdout)
        self.assertLessEqual(server.file_bytes_sent, 2 * self.source_bytes)

    def test_peak_disk_is_the_output(self):
        out, work = self.folder / "disk" / "out", self.folder / "disk"
        work.mkdir()
        temporary = self.folder / "scratch"
        temporary.mkdir()
        with web.Nginx(self.site) as server:
            with DiskWatch(work, temporary) as watch:
                self.run_sluice("fit", f"{server.url}/model", *BUDGET, "-o", out,
                                TMPDIR=str(temporary))
        final = sum(map(len, web.folder_files(work).values()))
        self.assertLess(watch.most, final + (1 << 20))
        self.assertEqual(list(temporary.iterdir()), [])

    def test_every_command(self):
        def words(result):
            return result.stdout.replace(f"{server.url}/model", "MODEL").replace(
                str(self.model), "MODEL")

        with web.Nginx(self.site) as server:
            for arguments in (["inspect"], ["inspect", "--json"], ["inspect", "--layers", "0"]):
                command, *rest = arguments
                remote = self.run_sluice(command, f"{server.url}/model", *rest)
                local = self.run_sluice(command, self.model, *rest)
                self.assertEqual(words(remote), words(local))
            header_bytes = sum(size for status, size, _ in server.requests() if status == 206)
            self.assertLess(header_bytes, self.source_bytes / 4, "inspect read weights")
            for where in (f"{server.url}/model", self.model):
                kind = "remote" if where != self.model else "local"
                self.run_sluice("analyze", where, "--best", "none", "-o",
                                self.folder / f"{kind}.analysis")
                self.run_sluice("plan", self.folder / f"{kind}.analysis", "--bpw", "4.5", "-o",
                                self.folder / f"{kind}.plan")
                self.run_sluice("quantize", where, "--plan", self.folder / f"{kind}.plan", "-o",
                                self.folder / f"{kind}-quantized")
                self.run_sluice("verify", where, self.folder / f"{kind}-quantized")
        for name in ("analysis", "plan"):
            self.assertEqual((self.folder / f"remote.{name}").read_bytes(),
                             (self.folder / f"local.{name}").read_bytes())
        self.assertEqual(web.folder_files(self.folder / "remote-quantized"),
                         web.folder_files(self.folder / "local-quantized"))

    def test_parts(self):
        with web.Nginx(self.site) as server:
            out = self.folder / "in-parts"
            for part in ("1/2", "2/2"):
                self.run_sluice("quantize", f"{server.url}/model", "--bits", "4", "--part", part,
                                "-o", out)
            self.run_sluice("merge", out)
            self.run_sluice("quantize", self.model, "--bits", "4", "-o", self.folder / "in-one")
        self.assertEqual(web.folder_files(out), web.folder_files(self.folder / "in-one"))

    def test_single_files(self):
        gguf = support.demo_model()
        with web.Nginx(self.site) as server:
            single = self.site / "single"
            support.make_checkpoint(single, "qwen3", seed=self.seed)
            remote = self.run_sluice("inspect", f"{server.url}/single/model.safetensors", "--json")
            self.assertEqual(remote.stdout, self.run_sluice("inspect", single, "--json").stdout)
            if gguf is not None:
                (self.site / "demo.gguf").symlink_to(gguf)
                remote = self.run_sluice("inspect", f"{server.url}/demo.gguf", "--json")
                self.assertEqual(remote.stdout, self.run_sluice("inspect", self.site / "demo.gguf",
                                                                "--json").stdout)

    def test_certificates(self):
        certificate = self.folder / "certificate.pem"
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
             "subjectAltName=IP:127.0.0.1", "-keyout", certificate, "-out",
             self.folder / "public.pem"], capture_output=True)
        self.assertEqual(made.returncode, 0, made.stderr)
        public = (self.folder / "public.pem").read_text()
        certificate.write_text(certificate.read_text() + public)
        with web.Nginx(self.site, certificate) as server:
            refused = self.run_sluice("inspect", f"{server.url}/model", expect=4)
            self.assertIn("certificate", refused.stderr)
            self.run_sluice("inspect", f"{server.url}/model",
                            SSL_CERT_FILE=str(self.folder / "public.pem"))

    def test_memory(self):
        model = self.site / "larger"
        dims = support.load_tool("make_checkpoint").dims_for_bytes("llama", "bf16", 200e6)
        support.make_checkpoint(model, "llama", seed=self.seed, **dims)
        with web.Nginx(self.site) as server:
            run = support.measured(["fit", f"{server.url}/larger", "--bpw", "4.5", "--best", "none",
                                    "-o", self.folder / "larger-out"])
        self.assertEqual(run.code, 0, run.stderr)
        print(f"peak memory {run.peak_bytes / 1e6:.0f} MB")
        if not support.sanitized(support.binary()):
            self.assertLess(run.peak_bytes, 256e6)
        shutil.rmtree(model)


class FaultTest(HttpTestCase):
    def fit(self, server, name, expect=0):
        out = self.folder / name
        result = self.run_sluice("fit", f"{server.url}/model", *BUDGET, "-o", out, expect=expect)
        return out, result

    def test_everything_that_passes(self):
        """Each fault now and then, all through the run: the same bytes, at the same price."""
        kinds = ["drop", 429, "reset", "slow", 503, "no length", 500, 502, 408]
        hit = set()

        def fault(path, number, asked):
            if number % 7 == 3:
                kind = kinds[number // 7 % len(kinds)]
                hit.add(kind)
                return kind
            return None

        with web.FaultyServer(self.site, fault) as server:
            out, _ = self.fit(server, "faults")
        self.assertEqual(hit, set(kinds), "the run was too short for all of them")
        self.assert_same(out)
        # A drop repeats what had been lost in the pipes at most.
        self.assertLess(server.bytes_sent, 2 * self.source_bytes + (1 << 20))

    def test_bytes_fetched(self):
        with web.FaultyServer(self.site) as server:
            out, _ = self.fit(server, "fetched")
        self.assert_same(out)
        pages = sum(1 for path, _ in server.asked if not (self.site / path.lstrip("/")).is_file())
        self.assertLessEqual(server.bytes_sent, 2 * self.source_bytes + pages * len("not here"))
        self.assertGreater(server.bytes_sent, 1.8 * self.source_bytes, "was it read at all?")

    def check_refused(self, fault, words, code=3):
        """The fault strikes weights once the model has been opened."""
        def late(path, number, asked):
            return fault if number > 40 and path.endswith(".safetensors") else None

        with web.FaultyServer(self.site, late) as server:
            name = "refused-" + str(fault).replace(" ", "-")
            out, result = self.fit(server, name, expect=code)
        self.assertFalse(out.exists())
        for word in words:
            self.assertIn(word, result.stderr)

    def test_changed_tag(self):
        self.check_refused("etag", ["has changed on the server", "ETag"])

    def test_wrong_range(self):
        self.check_refused("wrong range", ["asked for bytes", "the server sends"])

    def test_wrong_size(self):
        self.check_refused("wrong size", ["has changed on the server", "its size"])

    def test_range_ignored(self):
        self.check_refused("whole", ["ignores ranges", "download the model first"])
        with web.FaultyServer(self.site, lambda path, *_: "whole") as server:
            result = self.run_sluice("inspect", f"{server.url}/model", expect=3)
            self.assertIn("ignores ranges", result.stderr)

    def test_small_files_without_ranges(self):
        """Which need no ranges."""
        with web.FaultyServer(self.site, lambda path, *_: (
                None if path.endswith(".safetensors") else "whole")) as server:
            out, _ = self.fit(server, "whole-files")
        self.assert_same(out)

    def test_gone(self):
        self.check_refused(404, ["not found on the server"])

    def test_no_tags(self):
        with web.FaultyServer(self.site, etags=False) as server:
            out, _ = self.fit(server, "untagged")
        self.assert_same(out)

    def test_bad_addresses(self):
        with web.FaultyServer(self.site) as server:
            for address, words in [
                    (f"{server.url}/elsewhere", "config.json"),
                    ("http://user:secret@127.0.0.1/model", "password"),
                    (f"{server.url}/model?x=1", "part before it"),
                    ("https://", "no usable address"),
                    ("http://127.0.0.1:99999/", "port"),
                    ("hf://", "no address on a hub"),
                    ("hf://a/../b", "no address on a hub"),
                    ("hf://a/b@", "no address on a hub")]:
                result = self.run_sluice("inspect", address, expect=3)
                self.assertIn(words, result.stderr)
                self.assertNotIn("secret", result.stderr)

    # --- kill and resume ---

    def killed_fit(self, server, out, after_requests, number=signal.SIGKILL):
        process = subprocess.Popen(
            [support.binary(), "fit", f"{server.url}/model", *BUDGET, "-o", str(out), "--threads", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.environment)
        while process.poll() is None and server.request_count < after_requests:
            time.sleep(0.002)
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode

    def test_kill_and_resume(self):
        with web.FaultyServer(self.site, lambda *_: "slow") as whole:
            self.fit(whole, "undisturbed")
        for share in (0.4, 0.75):
            out = self.folder / f"killed-{share}"
            with web.FaultyServer(self.site, lambda *_: "slow") as server:
                code = self.killed_fit(server, out, int(share * whole.request_count))
                self.assertEqual(code, -signal.SIGKILL)
                fetched = server.bytes_sent
                server.bytes_sent = 0
                self.run_sluice("fit", f"{server.url}/model", *BUDGET, "-o", out)
                rest = server.bytes_sent
            self.assert_same(out)
            # Early, headers alone may have been fetched twice; later, what was analyzed is not fetched
            # again.
            self.assertLess(rest, whole.bytes_sent * (1.01 if share < 0.5 else 0.8))
            print(f"killed after {fetched} of {whole.bytes_sent} bytes, {rest} more to finish")

    def test_interrupt(self):
        out = self.folder / "interrupted"
        with web.FaultyServer(self.site, lambda *_: "slow") as server:
            started = time.monotonic()
            code = self.killed_fit(server, out, 45, signal.SIGINT)
            self.assertEqual(code, 5)
            self.assertLess(time.monotonic() - started, 30)
            server.fault = lambda *_: None
            self.run_sluice("fit", f"{server.url}/model", *BUDGET, "-o", out)
        self.assert_same(out)

    def test_changed_between_runs(self):
        site = self.folder / "changing"
        shutil.copytree(self.site, site)
        out = self.folder / "changed"
        with web.FaultyServer(site, lambda *_: "slow") as server:
            self.assertEqual(self.killed_fit(server, out, 45), -signal.SIGKILL)
            weights = site / "model" / "model-00002-of-00003.safetensors"
            data = bytearray(weights.read_bytes())
            data[-100] ^= 1
            weights.write_bytes(data)
            server.fault = lambda *_: None
            result = self.run_sluice("fit", f"{server.url}/model", *BUDGET, "-o", out, expect=3)
            self.assertIn("was begun from another state of the source", result.stderr)
        self.assertFalse(out.exists())


if __name__ == "__main__":
    support.main()
