"""How much of some files lies in the page cache: what a program that reads them makes the system keep
for it, besides its own memory. Linux only."""

import ctypes
import mmap
import os
import sys
import threading

PAGE = mmap.PAGESIZE
THERE = sys.platform == "linux"


def cached_bytes(path):
    size = os.path.getsize(path)
    if size == 0:
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    fd = os.open(path, os.O_RDONLY)
    try:
        at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    finally:
        os.close(fd)
    if at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"cannot map {path}")
    pages = (size + PAGE - 1) // PAGE
    there = ctypes.create_string_buffer(pages)
    failed = libc.mincore(at, size, there)
    libc.munmap(at, size)
    if failed:
        raise OSError(ctypes.get_errno(), f"cannot look at {path}")
    return sum(byte & 1 for byte in there.raw) * PAGE


def drop(path):
    """Out of the cache, so that whatever is there later was brought in later."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Watch:
    """Drops the files of a model and then looks, every few milliseconds, how much more of them is
    cached than what cannot be dropped, as on a file system in memory. `most` is the largest sum seen,
    the end included."""

    def __init__(self, model):
        self.files = [p for p in (sorted(model.iterdir()) if model.is_dir() else [model])
                      if p.is_file()]
        self.most = self.at_first = 0

    def look(self):
        self.most = max(self.most, sum(map(cached_bytes, self.files)) - self.at_first)

    def __enter__(self):
        for path in self.files:
            drop(path)
        self.at_first = sum(map(cached_bytes, self.files))
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()
        return self

    def loop(self):
        while not self.done.wait(0.02):
            self.look()

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.look()
