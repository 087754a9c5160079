"""`sluice top` against a small stand-in for a server: figures, live drawing, resize, a server that goes away and
comes back, what is no answer, and the terminal as it was afterwards."""

import http.server
import json
import threading

import support
from support import BAD_USAGE, binary, sluice, sluice_json
from terminal import Terminal, require_tmux

METRICS = """\
# HELP sluice_requests_total Requests.
# TYPE sluice_requests_total counter
sluice_requests_total{path="/v1/chat/completions",status="200"} 40
sluice_requests_total{path="/v1/chat/completions",status="400"} 2
sluice_requests_running 2
sluice_requests_queued 1
sluice_slots_total 4
sluice_prompt_tokens_total 5000
sluice_prompt_tokens_reused_total 3000
sluice_generated_tokens_total 900
sluice_disk_read_bytes_total {disk}
sluice_experts_requested_total 1000
sluice_experts_hit_total 925
sluice_resident_bytes 2000000000
sluice_memory_limit_bytes 8000000000
sluice_weight_bytes 1500000000
sluice_kv_bytes 100000000
sluice_context_tokens_used 812
sluice_decode_tokens_per_second {speed}
sluice_prefill_tokens_per_second 431.5
sluice_uptime_seconds 3700
sluice_model_info{model="tiny",family="qwen3_moe",storage="MLX 4/64"} 1
sluice_time_to_first_token_seconds_bucket{le="0.5"} 20
sluice_time_to_first_token_seconds_bucket{le="1"} 40
sluice_time_to_first_token_seconds_bucket{le="+Inf"} 40
"""
SLOTS = [{"id": 0, "state": "decode", "model": "tiny", "prompt_tokens": 31, "generated_tokens": 7,
          "context": 4096},
         {"id": 1, "state": "idle", "model": "", "prompt_tokens": 0, "generated_tokens": 0,
          "context": 4096}]


class Server(http.server.ThreadingHTTPServer):
    """Canned answers; every look finds more."""

    daemon_threads = True

    def __init__(self, port=0, token=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.token, self.looks, self.answers = token, 0, {}
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self):
        self.shutdown()
        self.server_close()
        self.thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, status, body = self.server, 200, ""
        if server.token and self.headers["Authorization"] != f"Bearer {server.token}":
            status = 401
        elif self.path in server.answers:
            body = server.answers[self.path]
        elif self.path == "/metrics":
            server.looks += 1
            body = METRICS.replace("{disk}", str(server.looks * 50_000_000))
            body = body.replace("{speed}", str(10 + server.looks % 5))
        elif self.path == "/slots":
            body = json.dumps(SLOTS)
        else:
            status = 404
        self.send_response(status)
        data = body.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Top(support.TestCase):
    def server(self, *arguments):
        server = Server(*arguments)
        self.addCleanup(lambda: server.stop() if server.thread.is_alive() else None)
        return server

    def open(self, *arguments, **options):
        require_tmux()
        terminal = Terminal(["sh", "-c", 'trap : INT; echo before; "$@"; stty -a | tr ";" "\\n"', "sh", binary(),
                             "top", *arguments, "--interval", "0.2"], **options)
        self.addCleanup(terminal.__exit__)
        return terminal

    def test_once_and_json(self):
        server = self.server()
        text = sluice("top", server.address, "--once").stdout
        for words in ("tiny  qwen3_moe  MLX 4/64", "11.0 tokens/s", "431.5 tokens/s", "2.000 GB of 8.000 GB",
                      "92.5 % in memory", "2 running, 1 waiting, 42 done, 2 of them", "up 1 h 01 min",
                      "0.50 s for the first token", "5000 read, 3000 of them kept"):
            self.assertIn(words, text)
        self.assertNotIn("\x1b", text)
        found = sluice_json("top", server.address)
        self.assertEqual(found["decode_tokens_per_s"], 12)
        self.assertEqual(found["resident_bytes"], 2e9)
        self.assertEqual(found["expert_hit_rate"], 0.925)
        self.assertIsNone(found["disk_read_bytes_per_s"])
        self.assertEqual([slot["state"] for slot in found["slots"]], ["decode", "idle"])

    def test_token(self):
        server = self.server(0, "secret")
        self.assertIn("it wants to know who asks", sluice("top", server.address, "--once", expect=3).stderr)
        self.assertIn("tiny", sluice("top", server.address, "--once", "--token", "secret").stdout)

    def test_what_is_no_answer(self):
        server = self.server()
        address = server.address
        for path, body, words in (("/metrics", "<html>", "line 1 is no metric"),
                                  ("/slots", "{}", "expected a list"),
                                  ("/slots", '[{"id": 1}]', "state"),
                                  ("/slots", "[" * 5000, "slots")):
            server.answers = {path: body}
            self.assert_refused(["top", address, "--once"], [words])
        server.stop()
        result = sluice("top", address, "--once", expect=4)
        self.assertIn("127.0.0.1", result.stderr)
        self.assert_refused(["top", "ftp://x", "--once"], ["ftp"])
        sluice("top", address, "--interval", "0", expect=BAD_USAGE)

    def test_live(self):
        server = self.server()
        top = self.open(server.address, columns=100, rows=30)
        top.wait_for("tiny  qwen3_moe")
        top.wait(lambda _: "MB/s" in top.screen(), "a disk rate")
        screen = top.screen()
        self.assertRegex(screen, r"decode +1\d\.0 tokens/s +[▁▂▃▄▅▆▇█]+")
        self.assertRegex(screen, r"0  decode +31 +7 +4096  tiny")
        self.assertIn("██████░░", screen)
        top.resize(40, 10)
        top.wait(lambda _: top.screen().rstrip().endswith("q quits")
                 and len(top.screen().splitlines()) <= 10, "the smaller window")
        self.assertTrue(all(len(line) <= 40 for line in top.screen().splitlines()))
        top.resize(100, 30)
        top.wait(lambda _: "0  decode" in top.screen(), "the larger window")
        self.leave(top, "q")

    def leave(self, top, key):
        top.key(key)
        text = top.wait_for("[ended 0]")
        self.assertIn("before", text)  # the screen is the one that was there
        self.assertNotIn("qwen3_moe", text)
        self.assertRegex(text, r"(?m)^ ?isig icanon|[^-]icanon")
        self.assertNotIn("-icanon", text)
        self.assertNotIn("-echo ", text)
        self.assertEqual(top.tmux("display-message", "-p", "#{cursor_flag}").strip(), "1")

    def test_interrupt(self):
        server = self.server()
        top = self.open(server.address)
        top.wait_for("qwen3_moe")
        top.key("C-c")
        top.wait(lambda text: "before" in text and "[ended 0]" in text and "qwen3_moe" not in text,
                 "the screen as it was")

    def test_server_goes_and_comes_back(self):
        server = self.server()
        port = server.server_address[1]
        top = self.open(server.address)
        top.wait_for("qwen3_moe")
        server.stop()
        top.wait_for("trying again")
        self.assertIn("qwen3_moe", top.screen())  # the last that is known
        self.server(port)
        top.wait(lambda text: "trying again" not in text, "the server again")
        self.leave(top, "q")

    def test_server_that_is_not_there_yet(self):
        server = self.server()
        address, port = server.address, server.server_address[1]
        server.stop()
        top = self.open(address)
        top.wait_for("no figures")
        self.server(port)
        top.wait_for("qwen3_moe")
        self.leave(top, "Q")


if __name__ == "__main__":
    support.main()
