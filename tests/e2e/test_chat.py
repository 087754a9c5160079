"""`sluice chat` as a person uses it: every command typed on a terminal (tmux), answers of a tiny random
model; conversations that outlive the program; pasting, Ctrl-C, narrow windows, damaged files."""

import json
import os
import re
import signal
import sqlite3
import subprocess

import support
from support import binary, make_checkpoint
from terminal import Terminal, require_tmux

TEMPLATE = ("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}<assistant>{% endif %}")
PROMPT = re.compile(r"^(\S+)?> $", re.M)


def letters(text):
    """These alone: what is drawn, and where lines break, is the business of another test."""
    return re.sub(r"\^.|<U\+[0-9A-F]+>|[^a-zA-Z]", "", text.replace("\n", ""))


class Chat(support.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        require_tmux()
        cls.models = [cls.folder / name for name in ("first", "second")]
        for seed, model in enumerate(cls.models, 1):
            make_checkpoint(model, "llama", seed=seed)
            (model / "chat_template.jinja").write_text(TEMPLATE)

    def setUp(self):
        self.home = self.folder / self.id().split(".")[-1]
        self.home.mkdir()
        self.database = self.home / "data/sluice/chats.db"

    def open(self, *options, columns=100, rows=30, tokens=8, model=0, **environment):
        command = [binary(), "chat", self.models[model], "--temp", "0.8", "--seed", 3, "-n", tokens,
                   "--ignore-eos", "--threads", 2, *([] if "--context" in options else ["--context", 2048]), *options]
        places = {"XDG_DATA_HOME": self.home / "data", "XDG_STATE_HOME": self.home / "state",
                  "XDG_CACHE_HOME": self.home / "cache"}
        terminal = Terminal(command, columns, rows, {**places, **environment})
        self.addCleanup(terminal.__exit__)
        terminal.wait_for("/help tells")
        self.ready(terminal)
        return terminal

    def ready(self, terminal):
        """Until the last line is a prompt where nothing has been typed."""
        return terminal.wait(lambda text: re.search(r"(^|\n)[^\n]*>\s*$", text), "a prompt")

    def say(self, terminal, text, answer=None):
        """What the program says to it: all that is new."""
        before = len(terminal.everything().rstrip())
        terminal.enter(text)
        terminal.wait(lambda shown: len(shown.rstrip()) > before + len(text), "an echo")
        if answer:
            terminal.wait(lambda shown: answer in shown[before - 2:], answer)
        return self.ready(terminal)[before:]

    def rows(self, query):
        with sqlite3.connect(self.database) as connection:
            return connection.execute(query).fetchall()

    def messages(self):
        return self.rows("SELECT count(*) FROM message")[0][0]

    def contents(self):
        """Not by json_extract, which ends at the first null character."""
        return [json.loads(row[0])["content"] for row in
                self.rows("SELECT body FROM message ORDER BY id")]

    def until_kept(self, terminal, count):
        def kept(_):
            # The program makes the file, then its tables.
            return (self.database.exists()
                    and self.rows("SELECT 1 FROM sqlite_master WHERE name = 'message'")
                    and self.messages() == count)

        terminal.wait(kept, f"{count} messages in the store")
        self.ready(terminal)

    # ---- the commands ----

    def test_help_and_stats_and_quit(self):
        chat = self.open()
        shown = self.say(chat, "/help", "/quit")
        for command in ("model", "system", "clear", "compact", "stats", "save", "load", "branch",
                        "restore", "retry", "good", "bad", "raw", "bench"):
            self.assertIn(f"/{command}", shown)
        self.say(chat, "hello")
        self.assertIn("generation: 8 tokens", self.say(chat, "/stats", "messages"))
        self.assertIn("there is no command /nonsense", self.say(chat, "/nonsense", "/quit"))
        chat.enter("/quit")
        chat.wait_for("[ended 0]")

    def test_end_of_input_ends(self):
        chat = self.open()
        chat.key("C-d")
        chat.wait_for("[ended 0]")

    def test_system_and_clear(self):
        chat = self.open("-s", "Be brief.")
        self.assertIn("Be brief.", self.say(chat, "/system", "Be brief."))
        self.say(chat, "hello")
        self.say(chat, "/system Be long.", "a new conversation begins")
        self.assertIn("Be long.", self.say(chat, "/system", "Be long."))
        self.say(chat, "hello again")
        self.say(chat, "/clear", "a new conversation begins")
        self.assertIn("0 messages", self.say(chat, "/stats", "messages"))
        self.say(chat, "/system off", "begins")
        self.assertIn("no system prompt", self.say(chat, "/system", "no system"))
        self.assertEqual(self.rows("SELECT system FROM conversation ORDER BY id"),
                         [("Be brief.",), ("Be long.",)])

    def test_save_and_load_by_name(self):
        chat = self.open()
        self.assertIn("no conversation", self.say(chat, "/load", "no conversation"))
        self.say(chat, "remember the green door")
        self.assertIn("kept as trip", self.say(chat, "/save trip", "kept as"))
        self.assertTrue(list((self.home / "data/sluice/sessions").iterdir()))
        self.say(chat, "/clear", "begins")
        self.say(chat, "another talk")
        self.assertIn("another conversation is named", self.say(chat, "/save trip", "error"))
        listed = self.say(chat, "/load", "green door")
        self.assertRegex(listed, r"1 +trip +2 +now +remember the green door")
        self.assertRegex(listed, r"2 +2 +now +another talk")
        self.assertIn("> remember the green door", self.say(chat, "/load trip", "green"))
        self.say(chat, "and the red one")
        # What was loaded has not been read again.
        reused = int(re.search(r"prompt: \d+ tokens, (\d+) kept", self.say(chat, "/stats", "kept"))[1])
        self.assertGreater(reused, 20)
        self.assertIn("there is no conversation", self.say(chat, "/load nobody", "error"))
        self.say(chat, "/load 2", "another talk")
        chat.enter("/quit")
        chat.wait_for("[ended 0]")
        again = self.open("--load", "trip")
        again.wait_for("> and the red one")
        self.assertIn("4 messages", self.say(again, "/stats", "messages"))

    def test_damaged_keys_and_values_are_read_anew(self):
        chat = self.open()
        self.say(chat, "first words")
        self.say(chat, "/save trip", "kept as")
        for path in (self.home / "data/sluice/sessions").iterdir():
            path.write_bytes(path.read_bytes()[:-7])
        self.say(chat, "/clear", "begins")
        self.assertIn("will be read anew", self.say(chat, "/load trip", "read anew"))
        self.say(chat, "second words")
        self.assertIn("4 messages", self.say(chat, "/stats", "messages"))

    def test_save_and_load_files(self):
        chat = self.open("-s", "Be brief.")
        self.say(chat, "hello")
        self.say(chat, f"/save {self.home}/talk")
        chat.wait(lambda _: (self.home / "talk.json").exists(), "the file")
        self.say(chat, "/system off", "begins")
        self.say(chat, f"/load {self.home}/talk")
        self.assertIn("2 messages", self.say(chat, "/stats", "messages"))
        self.assertIn("Be brief.", self.say(chat, "/system", "Be brief."))
        self.assertIn("error", self.say(chat, "/load ./nothing", "error"))

    def test_branch_and_restore(self):
        chat = self.open()
        self.say(chat, "one")
        self.assertIn("from here on this is branch idea", self.say(chat, "/branch idea", "from here"))
        chat.wait_for("idea> ")
        self.say(chat, "two")
        self.assertIn("back on branch main, 2 messages", self.say(chat, "/restore main", "back on"))
        self.say(chat, "three")
        listed = self.say(chat, "/branch", "idea")
        self.assertRegex(listed, r"\* +main +4 messages")
        self.assertRegex(listed, r"idea +4 messages")
        self.assertIn("> two", self.say(chat, "/restore idea", "> two"))
        # Where this branch began; what followed is not lost.
        self.assertIn("back on branch idea, 2 messages; what was there is branch idea-1",
                      self.say(chat, "/restore idea", "what was there"))
        self.assertIn("> two", self.say(chat, "/restore idea-1", "> two"))
        self.assertIn("there is no branch", self.say(chat, "/restore nothing", "error"))
        self.assertIn("already", self.say(chat, "/branch main", "error"))
        self.assertIn("a name has", self.say(chat, "/branch a/b", "error"))

    def test_retry_good_bad(self):
        chat = self.open()
        self.assertIn("no answer yet", self.say(chat, "/retry", "error"))
        self.assertIn("no answer yet", self.say(chat, "/good", "error"))
        self.say(chat, "hello")
        self.until_kept(chat, 2)
        self.assertIn("noted: a bad answer", self.say(chat, "/bad too odd", "noted"))
        self.say(chat, "/retry")
        self.until_kept(chat, 3)
        self.assertIn("noted: a good answer", self.say(chat, "/good", "noted"))
        self.assertIn("2 messages", self.say(chat, "/stats", "messages"))
        found = self.rows("SELECT rating, note, body FROM message ORDER BY id")
        self.assertEqual([row[:2] for row in found], [(0, ""), (-1, "too odd"), (1, "")])
        self.assertNotEqual(found[1][2], found[2][2])

    def test_compact(self):
        chat = self.open()
        self.say(chat, "one")
        self.assertIn("nothing yet to summarize", self.say(chat, "/compact", "error"))
        for text in ("two", "three"):
            self.say(chat, text)
        self.until_kept(chat, 6)
        self.assertIn("what was there is branch before-compact-1",
                      self.say(chat, "/compact", "what was there"))
        self.assertIn("4 messages", self.say(chat, "/stats", "messages"))
        self.say(chat, "four")
        self.assertIn("6 messages", self.say(chat, "/restore before-compact-1", "back on"))

    def test_compact_what_the_context_has_no_room_for(self):
        chat = self.open("--context", 900)
        for i in range(5):
            self.say(chat, f"{i} " + "words and more words " * 4)
        self.until_kept(chat, 10)
        self.assertIn("oldest messages, which are left out", self.say(chat, "/compact", "what was there"))
        self.assertIn("4 messages", self.say(chat, "/stats", "messages"))

    def test_model(self):
        chat = self.open()
        self.say(chat, "hello")
        self.assertIn("second", self.say(chat, f"/model {self.models[1]}", "goes on with"))
        self.say(chat, "and you?")
        self.assertIn("4 messages", self.say(chat, "/stats", "messages"))
        refused = self.say(chat, f"/model {self.folder}/nothing", "goes on with")
        self.assertIn("error", refused)
        self.assertIn("second", self.say(chat, "/model", "second"))
        models = self.rows("SELECT DISTINCT model FROM message WHERE id > 1 ORDER BY id")
        self.assertEqual([os.path.basename(row[0]) for row in models], ["first", "second"])

    def test_raw_and_bench(self):
        chat = self.open()
        self.assertIn("as they are written", self.say(chat, "/raw", "as they"))
        self.say(chat, "hello")
        self.assertIn("Markdown is drawn", self.say(chat, "/raw", "Markdown"))
        shown = self.say(chat, "/bench", "decode:")
        self.assertRegex(shown, r"prefill: 128 tokens, [0-9.]+ tokens/s\n.*decode: 32 tokens, [0-9.]+")
        self.say(chat, "still there?")
        self.assertIn("4 messages", self.say(chat, "/stats", "messages"))

    # ---- typing ----

    def test_editing_history_and_completion(self):
        chat = self.open()
        chat.type("/stxts")
        chat.key("Left", "Left", "Left", "BSpace")
        chat.type("")
        chat.key("C-c")
        self.ready(chat)
        self.assertNotIn("[ended", chat.everything())
        chat.type("/st")
        chat.key("Tab", "Enter")
        chat.wait_for("context: 0 of 2048")
        self.ready(chat)
        self.say(chat, "/system Sei grüßend 日本", "begins")
        chat.key("Up", "Enter")
        chat.wait_for("a new conversation begins", 2)
        self.assertIn("Sei grüßend 日本", self.say(chat, "/system", "Sei"))
        chat.enter("/quit")
        chat.wait_for("[ended 0]")
        again = self.open()
        again.key("Up", "Up", "Up", "Enter")
        again.wait_for("a new conversation begins")
        history = self.home / "state/sluice/chat_history"
        self.assertEqual(history.stat().st_mode & 0o077, 0)

    def test_lines_that_go_on(self):
        chat = self.open()
        chat.enter("one \\")
        chat.wait_for("..")
        self.say(chat, "two")
        self.until_kept(chat, 2)
        chat.enter('"""')
        chat.enter("three")
        chat.enter("/quit")
        self.say(chat, '"""')
        self.until_kept(chat, 4)
        chat.type("five")
        chat.key("M-Enter")
        self.say(chat, "six")
        self.until_kept(chat, 6)
        self.assertEqual(self.contents()[::2], ["one \ntwo", "three\n/quit\n", "five\nsix"])

    def test_pasting(self):
        chat = self.open()
        chat.type("look: ")
        chat.paste("def f():\n\treturn 'é'\n\x1b[31m# /quit\n")
        chat.wait_for("look: [3 lines]")
        self.say(chat, " ok")
        self.until_kept(chat, 2)
        chat.paste("one line")
        chat.wait_for("> one line")
        self.say(chat, "!")
        self.until_kept(chat, 4)
        self.assertEqual(self.contents()[::2],
                         ["look: def f():\n\treturn 'é'\n[31m# /quit ok", "one line!"])

    def test_a_path_is_no_command(self):
        chat = self.open()
        self.say(chat, "/usr/bin is a folder")
        self.until_kept(chat, 2)

    # ---- while it writes ----

    def test_interrupt_ends_the_answer_alone(self):
        chat = self.open("--context", 60000, tokens=50000)
        chat.enter("go on")
        chat.wait(lambda _: "tokens/s" in chat.screen(), "the busy line")
        self.assertRegex(chat.screen(), r"tokens/s +context \d+ of 60000 +memory [0-9.]+ MB")
        chat.key("C-c")
        self.ready(chat)
        self.until_kept(chat, 2)
        self.assertNotIn("tokens/s", chat.screen())
        self.assertEqual(chat.region(), ["0", "29"])
        self.assertIn("2 messages", self.say(chat, "/stats", "messages"))

    def test_narrow_windows_lose_nothing(self):
        chat = self.open("--context", 20000, tokens=6000, columns=48, rows=9)
        self.say(chat, "/raw", "as they")
        chat.enter("a long answer")
        chat.wait(lambda _: "context" in chat.screen(), "the busy line")
        chat.resize(60, 12)
        self.until_kept(chat, 2)
        self.assertEqual(chat.region(), ["0", "11"])
        written = self.contents()[1]
        shown = letters("".join(f"^{chr(ord(c) ^ 64)}" if ord(c) < 32 and c not in "\n\t" else c
                                for c in written))
        self.assertGreater(len(shown), 500)
        # In order, whatever a line's end has cut in two; and nothing twice.
        there = letters(chat.everything())
        rest = iter(there)
        self.assertTrue(all(letter in rest for letter in shown), (shown, there))
        self.assertLess(len(there), 1.05 * len(shown) + 300)

    def test_the_model_cannot_command_the_terminal(self):
        chat = self.open(tokens=400)
        self.say(chat, "noise")
        self.until_kept(chat, 2)
        written = self.contents()[1]
        controls = [c for c in written if ord(c) < 32 and c not in "\n\t"]
        self.assertTrue(controls, "the random model wrote no control characters: change its seed")
        self.assertIn("^" + chr(ord(controls[0]) ^ 64), chat.everything())

    # ---- what is kept ----

    def test_nothing_is_kept_unless_wanted(self):
        chat = self.open("--no-keep")
        self.say(chat, "secret")
        chat.enter("/quit")
        chat.wait_for("[ended 0]")
        self.assertFalse(self.database.exists())
        result = subprocess.run([binary(), "chat", self.models[0], "-n", "4"], input="hello\n",
                                capture_output=True, text=True, check=True,
                                env={**os.environ, "XDG_DATA_HOME": str(self.home / "data")})
        self.assertFalse(self.database.exists(), result.stderr)
        self.assertNotIn("\x1b", result.stdout)

    def test_damaged_store(self):
        self.database.parent.mkdir(parents=True)
        self.database.write_text("this is no database; " * 100)
        chat = self.open()
        shown = self.say(chat, "hello", "this conversation is not kept")
        self.assertIn("is no database; move it away", shown)
        self.assertIn("2 messages", self.say(chat, "/stats", "messages"))
        self.assertIn("error", self.say(chat, "/load", "is no database"))

    def test_killed_and_two_at_once(self):
        chat = self.open()
        self.say(chat, "hello")
        self.until_kept(chat, 2)
        self.say(chat, "/save both", "kept as")
        other = self.open("--load", "both")
        other.wait_for("> hello")
        self.say(other, "from the other")
        self.until_kept(other, 4)
        shown = self.say(chat, "from the first", "another process has gone on")
        self.assertIn("branch main-1", shown)
        self.until_kept(chat, 6)
        pid = int(chat.tmux("display-message", "-p", "#{pane_pid}"))
        for child in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True,
                                    text=True).stdout.split():
            os.kill(int(child), signal.SIGKILL)
        chat.wait_for("[ended 137]")
        self.assertEqual(self.rows("PRAGMA integrity_check"), [("ok",)])
        self.assertEqual(self.messages(), 6)

    def test_no_colour(self):
        chat = self.open(NO_COLOR="1")
        self.say(chat, "hello")
        chat.enter("/quit")
        chat.wait_for("[ended 0]")
        # Bold, dim and colours; moving the cursor is another matter.
        self.assertNotRegex(chat.screen(styles=True), r"\x1b\[[0-9;]*[1-9][0-9;]*m")


if __name__ == "__main__":
    support.main()
