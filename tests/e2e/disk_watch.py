"""How much some folders hold while a program works in them."""

import threading
import time


class DiskWatch:
    """The most bytes that some folders held at a time."""

    def __init__(self, *folders):
        self.folders, self.most, self.done = folders, 0, threading.Event()

    def held(self):
        total = 0
        for folder in self.folders:
            for path in folder.rglob("*"):
                try:
                    total += path.stat().st_size if path.is_file() else 0
                except FileNotFoundError:
                    pass
        return total

    def work(self):
        while not self.done.is_set():
            self.most = max(self.most, self.held())
            time.sleep(0.005)

    def __enter__(self):
        self.thread = threading.Thread(target=self.work)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.most = max(self.most, self.held())
