"""Hubs, against a stand-in of their API on the loopback: models read in place at one commit, pull with
resume and checks, gated and private models, tokens that stay where they belong, push.

    test_hub.py SLUICE
"""

import hashlib
import json
import os
import signal
import subprocess
import time
import unittest

import support
import web

BUDGET = ["--bpw", "5", "--best", "none"]
NAME = "org/tiny-model"


class HubTestCase(support.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.seed = support.test_seed()
        cls.model = cls.folder / "tiny-model"
        support.make_checkpoint(cls.model, "qwen3", shards=2, seed=cls.seed, vocab_size=2048,
                                hidden_size=256, intermediate_size=512)
        (cls.model / "README.md").write_text("---\nlicense: mit\n---\nA model.\n")
        cls.files = web.folder_files(cls.model)
        cls.extra = {**cls.files, ".gitattributes": b"*.safetensors filter=lfs\n",
                     "pytorch_model.bin": b"the same again", "original/params.json": b"{}",
                     "consolidated.safetensors": b"and again"}
        cls.source_bytes = sum(map(len, cls.files.values()))
        cls.base = web.clean_environment(cls.folder / "home")

    def setUp(self):
        self.hub = web.Hub()
        self.hub.repositories[NAME] = web.Repository(self.extra)
        self.hub.__enter__()
        self.addCleanup(self.hub.__exit__)

    def run_sluice(self, *arguments, expect=0, token=None, **variables):
        command = [os.path.abspath(support.binary()), *map(str, arguments)]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=self.folder,
            env={**self.base, **self.hub.environment(token, **variables)})
        if result.returncode != expect:
            raise AssertionError(f"{command}: exit {result.returncode}, expected {expect}\n"
                                 f"{result.stdout[-2000:]}\n{result.stderr[-2000:]}")
        self.assertNotIn(self.hub.token, result.stdout + result.stderr)
        self.assertNotIn("signature=", result.stdout + result.stderr)
        return result

    def out(self):
        return self.folder / self.id().rpartition(".")[2]


class InPlaceTest(HubTestCase):
    def test_fit(self):
        local = self.folder / "local-fit"
        self.run_sluice("fit", self.model, *BUDGET, "-o", local)
        result = self.run_sluice("fit", f"hf://{NAME}", *BUDGET, "-o", self.out())
        self.assertIn("at commit", result.stderr)
        expected, found = web.folder_files(local), web.folder_files(self.out())
        self.assertEqual(sorted(found), sorted(expected))
        # These name the repository and the commit.
        own = ("run.json", "verify.json", "sluice.json", "README.md", "report.html")
        for name in set(expected) - set(own):
            self.assertEqual(found[name], expected[name], name)
        record = json.loads(found["sluice.json"])
        self.assertEqual(record["source"]["name"], NAME)
        self.assertEqual(record["source"]["revision"], self.hub.repositories[NAME].head)
        self.assertIn(f'base_model: "{NAME}"', found["README.md"].decode())
        self.assertIn("license: mit", found["README.md"].decode())
        weights = sum(len(data) for name, data in self.files.items())
        self.assertLess(self.hub.sent(), 2 * weights + 20_000)
        # Whatever was read came from that commit.
        for method, path in self.hub.asked:
            if "/resolve/" in path:
                self.assertIn(record["source"]["revision"], path)
        self.run_sluice("verify", f"hf://{NAME}", self.out())
        self.run_sluice("verify", self.model, self.out())

    def test_addresses(self):
        repository = self.hub.repositories[NAME]
        first = repository.head
        repository.commit({"sub/" + path: data for path, data in self.files.items()})
        expected = self.run_sluice("inspect", self.model, "--json").stdout
        for address in (f"hf://{NAME}@{first}", f"{NAME}@{first}", f"hf://{NAME}/sub",
                        f"{self.hub.url}/{NAME}/tree/main/sub"):
            if not address.startswith(("hf://", "http")):
                self.run_sluice("inspect", address, expect=3)
                continue
            self.assertEqual(self.run_sluice("inspect", address, "--json").stdout, expected)
        for address, words in ((f"hf://{NAME}@nothing", "no such revision"),
                               (f"hf://{NAME}/nowhere", "no such file or folder"),
                               ("hf://org/other", "no such repository")):
            self.assertIn(words, self.run_sluice("inspect", address, expect=3).stderr)

    def test_long_lists_come_in_pages(self):
        self.hub.page = 3
        self.run_sluice("inspect", f"hf://{NAME}")
        self.assertGreater(sum("cursor=" in path for _, path in self.hub.asked), 2)

    def test_signatures_run_out(self):
        """An address of the store serves three requests; then the hub is asked for another."""
        self.hub.store.uses = 3
        self.run_sluice("fit", f"hf://{NAME}", *BUDGET, "-o", self.out())
        self.assertGreater(len(self.hub.store.signatures), 5)

    def test_another_content(self):
        self.hub.linked_etag = hashlib.sha256(b"another").hexdigest()
        result = self.run_sluice("inspect", f"hf://{NAME}", expect=3)
        self.assertIn("has changed on the server", result.stderr)

    def test_commit_between_runs(self):
        repository = self.hub.repositories[NAME]
        first = repository.head
        command = ["fit", f"hf://{NAME}", *BUDGET, "-o", str(self.out()), "--threads", "1"]
        self.hub.store.fault = lambda *_: "slow"
        process = subprocess.Popen(
            [support.binary(), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**self.base, **self.hub.environment()})
        while process.poll() is None and self.hub.store.request_count < 20:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        self.assertEqual(process.returncode, -signal.SIGKILL)
        self.hub.store.fault = lambda *_: None
        repository.commit({**self.extra, "README.md": b"Another card."})
        refused = self.run_sluice(*command, expect=3)
        self.assertIn(f"was begun from commit {first}", refused.stderr)
        self.assertIn(f"@{first}", refused.stderr)
        command[1] += f"@{first}"
        self.run_sluice(*command)

    def test_tokens(self):
        """For the hub alone: the store behind the redirect never sees one."""
        self.hub.repositories[NAME].private = True
        refused = self.run_sluice("inspect", f"hf://{NAME}", expect=3)
        self.assertIn("HF_TOKEN", refused.stderr)
        self.run_sluice("inspect", f"hf://{NAME}", token="wrong", expect=3)
        self.run_sluice("inspect", f"hf://{NAME}", token=self.hub.token)
        self.assertGreater(self.hub.store.request_count, 0)
        self.assertEqual(self.hub.store.leaks, [])

    def test_gated(self):
        self.hub.repositories[NAME].gated = True
        for command in (["inspect", f"hf://{NAME}"], ["pull", NAME, "--to", self.out()]):
            refused = self.run_sluice(*command, expect=3)
            errors = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
            self.assertEqual(len(errors), 1)
            for word in ("gated", "HF_TOKEN", "licence", f"{self.hub.url}/{NAME}"):
                self.assertIn(word, errors[0])
            self.assertNotIn("attempts", errors[0])
        self.run_sluice("pull", NAME, "--to", self.out(), token=self.hub.token)

    def test_failures_that_pass(self):
        seen = set()

        def fault(method, path):
            if path not in seen:
                seen.add(path)
                return 503 if len(seen) % 2 else 429
            return None

        self.hub.fault = fault
        self.run_sluice("inspect", f"hf://{NAME}")
        self.assertGreater(len(seen), 3)


class PullTest(HubTestCase):
    def assert_pulled(self, folder, files=None):
        self.assertEqual(web.folder_files(folder), self.files if files is None else files)

    def test_pull(self):
        result = self.run_sluice("pull", NAME, "--to", self.out(), "--json")
        self.assert_pulled(self.out())
        summary = json.loads(result.stdout)
        self.assertEqual(summary["commit"], self.hub.repositories[NAME].head)
        self.assertEqual(summary["fetched_bytes"], self.source_bytes)
        # Again: nothing is fetched but the list.
        before = self.hub.store.bytes_sent
        summary = json.loads(self.run_sluice("pull", f"hf://{NAME}", "--to", self.out(),
                                             "--json").stdout)
        self.assertEqual((summary["fetched_bytes"], self.hub.store.bytes_sent), (0, before))
        self.run_sluice("pull", NAME)
        self.assert_pulled(self.folder / "tiny-model")  # what lies there is the model itself

    def test_include(self):
        self.run_sluice("pull", NAME, "--to", self.out(), "--include", "*.json", "--include",
                        "original/*")
        expected = {path: data for path, data in self.extra.items() if path.endswith(".json")}
        self.assert_pulled(self.out(), expected)
        refused = self.run_sluice("pull", NAME, "--to", self.out(), "--include", "*.xyz", expect=3)
        self.assertIn("matches *.xyz", refused.stderr)

    def test_gguf_is_chosen(self):
        ggufs = {"m-Q4_K_M.gguf": b"four", "m-Q8_0.gguf": b"eight", "README.md": b"card"}
        self.hub.repositories["org/m-gguf"] = web.Repository(ggufs)
        refused = self.run_sluice("pull", "org/m-gguf", "--to", self.out(), expect=3)
        for word in ("several GGUF models", "--include", "m-Q4_K_M.gguf"):
            self.assertIn(word, refused.stderr)
        self.run_sluice("pull", "org/m-gguf", "--to", self.out(), "--include", "*Q8_0*")
        self.assert_pulled(self.out(), {"m-Q8_0.gguf": b"eight"})

    def test_other_files_are_in_the_way(self):
        self.out().mkdir()
        (self.out() / "config.json").write_text("mine")
        refused = self.run_sluice("pull", NAME, "--to", self.out(), expect=3)
        self.assertIn("remove it or choose another folder", refused.stderr)
        self.assertEqual((self.out() / "config.json").read_text(), "mine")

    def test_damaged_on_the_way(self):
        shard = hashlib.sha256(self.files["model-00001-of-00002.safetensors"]).hexdigest()
        self.hub.store.fault = lambda oid, *_: "flip" if oid == shard else None
        refused = self.run_sluice("pull", NAME, "--to", self.out(), expect=3)
        self.assertIn("SHA-256", refused.stderr)
        self.assertNotIn("model-00001-of-00002.safetensors", web.folder_files(self.out()))
        self.hub.store.fault = lambda *_: None
        self.run_sluice("pull", NAME, "--to", self.out())
        self.assert_pulled(self.out())

    def test_drops(self):
        kinds = ["drop", 503, 429, "no length"]
        self.hub.store.fault = lambda _, number, asked: (
            kinds[number // 3 % 4] if number % 3 == 0 else None)
        self.run_sluice("pull", NAME, "--to", self.out())
        self.assert_pulled(self.out())

    def test_kill_and_resume(self):
        large = {"model.safetensors": os.urandom(48 << 20), "config.json": b"{}"}
        self.hub.repositories["org/large"] = web.Repository(large)
        for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 5)):
            out = self.folder / f"resumed-{number}"
            self.hub.store.fault = lambda _, number, asked: (
                "hang" if int(asked[6:].split("-")[0]) >= 16 << 20 else None)
            process = subprocess.Popen(
                [support.binary(), "pull", "org/large", "--to", out], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env={**self.base, **self.hub.environment()})
            part = None
            while process.poll() is None and part is None:
                part = next((p for p in out.glob("model.safetensors.*.part") if p.stat().st_size > 0), None)
            process.send_signal(number)
            process.wait(20)
            self.assertEqual(process.returncode, code)
            self.assertFalse((out / "model.safetensors").exists())
            kept = part.stat().st_size
            before = self.hub.store.bytes_sent
            self.hub.store.fault = lambda *_: None
            summary = json.loads(self.run_sluice("pull", "org/large", "--to", out, "--json").stdout)
            self.assertLessEqual(summary["fetched_bytes"], (48 << 20) - kept + 2)
            # Replies to the killed run may still be on their way.
            self.assertLess(self.hub.store.bytes_sent - before, (48 << 20) - kept + (1 << 20))
            self.assert_pulled(out, large)

    def test_too_small_a_disk(self):
        class Huge(bytes):
            def __len__(self):
                return 1 << 60

        entries = self.hub.repositories[NAME]
        entries.commits[entries.head]["model-huge.safetensors"] = Huge(b"x")
        refused = self.run_sluice("pull", NAME, "--to", self.out(), "--include", "*huge*", expect=4)
        self.assertIn("are needed but only", refused.stderr)
        self.assertEqual(self.hub.store.request_count, 0)

    def test_names_that_climb(self):
        self.hub.repositories["org/evil"] = web.Repository({"../evil.json": b"{}"})
        refused = self.run_sluice("pull", "org/evil", "--to", self.out(), expect=3)
        self.assertIn("lists a file named", refused.stderr)
        self.assertFalse((self.folder / "evil.json").exists())

    def test_memory(self):
        large = {"model.safetensors": os.urandom(96 << 20)}
        self.hub.repositories["org/large"] = web.Repository(large)
        summary = json.loads(self.run_sluice("pull", "org/large", "--to", self.out(),
                                             "--json").stdout)
        print(f"peak memory {summary['peak_resident_bytes'] / 1e6:.0f} MB")
        if not support.sanitized(support.binary()):
            self.assertLess(summary["peak_resident_bytes"], 256e6)


class PushTest(HubTestCase):
    def push(self, *arguments, expect=0, token="right"):
        return self.run_sluice("push", self.model, "me/pushed", *arguments, expect=expect,
                               token=self.hub.token if token == "right" else token)

    def pushed(self):
        return self.hub.repositories["me/pushed"].at("main")

    def test_push(self):
        (self.model / "run.json").write_text("{}")
        self.addCleanup((self.model / "run.json").unlink)
        self.assertIn("HF_TOKEN", self.push(expect=3, token=None).stderr)
        self.assertIn("no such repository", self.push(expect=3).stderr)
        result = json.loads(self.push("--create", "--private", "--message", "First",
                                      "--json").stdout)
        self.assertEqual(self.pushed(), self.files)
        self.assertTrue(self.hub.repositories["me/pushed"].private)
        self.assertEqual(self.hub.summaries, ["First"])
        self.assertEqual(result["commit"], self.hub.repositories["me/pushed"].head)
        self.assertEqual(self.hub.store.leaks, [])
        # Once more: the store has everything.
        again = json.loads(self.push("--create", "--json").stdout)
        self.assertEqual(again["uploaded_bytes"], 0)

    def test_parts_and_failures(self):
        self.hub.store.part_bytes = 100_000
        self.hub.store.put_fault = lambda number: 503 if number % 4 == 2 else None
        self.push("--create")
        self.assertEqual(self.pushed(), self.files)
        self.assertGreater(self.hub.store.put_count, 10)

    def test_refused(self):
        self.hub.repositories["me/pushed"] = web.Repository()
        self.hub.store.put_fault = lambda number: 400
        self.assertIn("400", self.push(expect=4).stderr)
        self.assertEqual(self.pushed(), {})
        self.run_sluice("push", self.folder / "nothing", "me/x", token=self.hub.token, expect=3)
        self.run_sluice("push", self.model, "me/../x", token=self.hub.token, expect=3)
        unfinished = self.folder / "x.partial"
        unfinished.mkdir()
        self.assertIn("unfinished", self.run_sluice("push", unfinished, "me/x", expect=3,
                                                    token=self.hub.token).stderr)

    def test_round_trip(self):
        self.push("--create")
        self.run_sluice("pull", "me/pushed", "--to", self.out(), token=self.hub.token)
        self.assertEqual(web.folder_files(self.out()), self.files)


class LocalNamesTest(HubTestCase):
    def test_cache_of_hugging_face(self):
        cache = self.folder / "cache"
        model = cache / "models--org--name"
        (model / "refs").mkdir(parents=True)
        (model / "snapshots").mkdir()
        (model / "refs" / "main").write_text("abc")
        (model / "snapshots" / "abc").symlink_to(self.model)
        found = self.run_sluice("inspect", "org/name", HF_HUB_CACHE=str(cache))
        self.assertIn(str(model / "snapshots" / "abc"), found.stderr)
        missing = self.run_sluice("inspect", "org/other", expect=3, HF_HUB_CACHE=str(cache))
        self.assertIn("hf://org/other would fetch it", missing.stderr)
        self.assertEqual(self.hub.request_count, 0, "a name alone must not ask the network")
        refused = self.run_sluice("run", f"hf://{NAME}", "-p", "x", expect=3)
        self.assertIn("sluice pull", refused.stderr)


if __name__ == "__main__":
    support.main()
