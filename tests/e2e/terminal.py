"""A terminal that tests type into and look at: tmux, on a server of its own."""

import os
import shlex
import shutil
import subprocess
import tempfile
import time

import support

TIMEOUT_S = 90  # of any wait: two slow cores that are busy with other things


def require_tmux():
    if shutil.which("tmux") is None:
        support.skip("tmux is not installed; run scripts/setup test")


class Terminal:
    """One window that runs a command. environment: on top of this process's own."""

    def __init__(self, command, columns=100, rows=30, environment=None):
        self.folder = tempfile.mkdtemp(prefix="sluice-tmux-")
        self.socket = os.path.join(self.folder, "s")
        settings = {"LC_ALL": "C.UTF-8", "NO_COLOR": "", "HOME": self.folder, **(environment or {})}
        exports = [f"{name}={shlex.quote(str(value))}" for name, value in settings.items()]
        # The shell stays behind it, so that what it leaves of the terminal can be looked at.
        line = " ".join(["env", *exports, *(shlex.quote(str(word)) for word in command)])
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", rows,
                  f"trap : INT; {line}; echo \"[ended $?]\"; exec cat")
        self.tmux("set-option", "-g", "history-limit", "5000")

    def tmux(self, *arguments, **options):
        result = subprocess.run(["tmux", "-S", self.socket, *map(str, arguments)],
                                capture_output=True, text=True, timeout=60, **options)
        if result.returncode != 0:
            raise AssertionError(f"tmux {arguments}: {result.stderr}")
        return result.stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def type(self, text):
        """Keys as they are; no Enter."""
        self.tmux("send-keys", "-l", "--", text)

    def key(self, *names):
        self.tmux("send-keys", *names)

    def enter(self, text=""):
        if text:
            self.type(text)
        self.key("Enter")

    def paste(self, text):
        """As a terminal does it: in one go, between marks where the program asked for them."""
        self.tmux("load-buffer", "-", input=text)
        self.tmux("paste-buffer", "-p")

    def resize(self, columns, rows):
        self.tmux("resize-window", "-x", columns, "-y", rows)

    def screen(self, styles=False):
        """What is seen now, without spaces at the ends of lines."""
        return self.tmux("capture-pane", "-p", *(["-e"] if styles else []))

    def everything(self):
        """With what has scrolled away; lines that the terminal broke are joined."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-")

    def region(self):
        """First and last row that scroll."""
        return self.tmux("display-message", "-p", "#{scroll_region_upper} #{scroll_region_lower}").split()

    def wait(self, condition, what):
        """Until condition(everything()) holds; returns the text."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            text = self.everything()
            if condition(text):
                return text
            if time.monotonic() > end:
                raise AssertionError(f"waited {TIMEOUT_S} s for {what}; the screen is\n{text}")
            time.sleep(0.05)

    def wait_for(self, words, count=1):
        return self.wait(lambda text: text.count(words) >= count, f"{words!r}, {count} times")
