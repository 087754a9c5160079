"""A network of its own for a test (Linux): public and private addresses that all lead to this process, names
that a test decides about, and no way out.

isolate() runs the script again inside of it, or skips where the system does not allow that.
"""

import fcntl
import os
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading

import support

PUBLIC, PRIVATE = "93.184.215.14", "10.1.2.3"
INSIDE = "SLUICE_TEST_LONE_NETWORK"
SIOCSIFADDR, SIOCSIFFLAGS, IFF_UP = 0x8916, 0x8914, 1


def isolate():
    """Returns inside, with the addresses up and resolv.conf naming a server on 127.0.0.1."""
    if os.environ.get(INSIDE) != "1":
        mapped = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *mapped, "--net", "--mount"]
        try:
            able = subprocess.run([*command, "true"], capture_output=True).returncode == 0
        except FileNotFoundError:
            able = False
        if not able:
            support.skip("no network namespaces here")
        os.execvpe("unshare", [*command, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, address in (("lo", "127.0.0.1"), ("lo:1", PUBLIC), ("lo:2", PRIVATE)):
            request = struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, SIOCSIFADDR, request)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        file.flush()
        subprocess.run(["mount", "--bind", file.name, os.path.realpath("/etc/resolv.conf")], check=True)


class Names(socketserver.ThreadingUDPServer):
    """A DNS server. addresses: name → its addresses, one for each question in turn; the last stays."""

    allow_reuse_address = True

    def __init__(self, addresses):
        super().__init__(("127.0.0.1", 53), self.Answer)
        self.addresses, self.asked = addresses, []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    class Answer(socketserver.BaseRequestHandler):
        def handle(self):
            question, sender = self.request
            labels, at = [], 12
            while question[at]:
                labels.append(question[at + 1:at + 1 + question[at]].decode())
                at += question[at] + 1
            name, kind = ".".join(labels), struct.unpack(">H", question[at + 1:at + 3])[0]
            answers = b""
            if kind == 1 and name in self.server.addresses:
                self.server.asked.append(name)
                left = self.server.addresses[name]
                address = left.pop(0) if len(left) > 1 else left[0]
                answers = struct.pack(">HHHIH4s", 0xC00C, 1, 1, 0, 4, socket.inet_aton(address))
            head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if answers else 0, 0, 0)
            sender.sendto(head + question[12:at + 5] + answers, self.client_address)
