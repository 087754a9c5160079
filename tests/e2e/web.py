"""Web servers for tests, on the loopback alone: nginx over a folder, a server with faults of every
kind, and a stand-in of the hub's API with a store of large files on another port, as the real one has.

Everything is counted: requests, and bytes of replies' bodies.
"""

import base64
import collections
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

PIECE = 32 << 10


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx:
    """The folder's content under http://127.0.0.1:port/. file_bytes_sent after the end."""

    @staticmethod
    def program():
        return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")

    def __init__(self, root, certificate=None):
        self.root, self.port, self.certificate = Path(root), free_port(), certificate

    def __enter__(self):
        self._work = tempfile.TemporaryDirectory(prefix="sluice-nginx-")
        work = Path(self._work.name)
        tls = "" if self.certificate is None else (
            f"ssl_certificate {self.certificate}; ssl_certificate_key {self.certificate};")
        temporary = " ".join(f"{name}_temp_path {work}/{name};"
                             for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (work / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {work}/pid; error_log {work}/error;
events {{ worker_connections 256; }}
http {{
  {temporary}
  types {{}} default_type application/octet-stream;
  log_format counts '$status $body_bytes_sent $request_uri';
  access_log {work}/access counts;
  server {{ listen 127.0.0.1:{self.port}{" ssl" if tls else ""}; {tls} root {self.root}; }}
}}
""")
        self.process = subprocess.Popen([self.program(), "-c", work / "nginx.conf", "-p", work,
                                         "-e", work / "error"], stderr=subprocess.DEVNULL)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise AssertionError("nginx does not start: " + (work / "error").read_text())
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.log = work / "access"
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        # Pages that say that something is not there are no part of any file.
        self.file_bytes_sent = sum(size for status, size, _ in self.requests() if status < 300)
        self._work.cleanup()

    def requests(self):
        """(status, bytes, path) of each."""
        if not self.log.exists():
            return []
        lines = [line.split(" ", 2) for line in self.log.read_text().splitlines()]
        return [(int(status), int(size), path) for status, size, path in lines]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def owner(self):
        return self.server.owner

    def respond(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.owner.count(len(body))

    def respond_json(self, value, status=200, headers=()):
        self.respond(status, json.dumps(value).encode(),
                     {"Content-Type": "application/json", **dict(headers)})

    def asked_range(self, size):
        """(first, last), None without a range, False for one that lies outside."""
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not match:
            return None
        first, last = int(match[1]), min(int(match[2]), size - 1)
        return (first, last) if first <= last else False

    def serve(self, data, headers, fault=None):
        """A file, by range when asked for, with what is to go wrong with it."""
        asked = None if fault == "whole" else self.asked_range(len(data))
        if self.headers.get("If-Match") not in (None, headers.get("ETag")):
            return self.respond(412)
        if asked is False:
            return self.respond(416, headers={"Content-Range": f"bytes */{len(data)}"})
        first, last = asked or (0, len(data) - 1)
        body = data[first:last + 1]
        self.send_response(206 if asked else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if asked:
            shift = 1 if fault == "wrong range" and last + 1 < len(data) else 0
            total = len(data) + (1 if fault == "wrong size" else 0)
            self.send_header("Content-Range", f"bytes {first + shift}-{last + shift}/{total}")
        if fault == "no length":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault in ("drop", "no length"):
            body = body[:len(body) // 2]
            self.close_connection = True
        if fault in ("slow", "hang"):
            time.sleep(0.05 if fault == "slow" else 20)
        for at in range(0, len(body), PIECE):
            piece = body[at:at + PIECE]
            self.wfile.write(piece)
            self.owner.count(len(piece))


class Server:
    """Threads of a handler class; counts what they send."""

    def __init__(self, handler):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.owner = self
        self._server.handle_error = lambda *_: None  # clients go away, that is what tests are for
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.bytes_sent = self.request_count = 0
        self.lock = threading.Lock()

    def count(self, size):
        with self.lock:
            self.bytes_sent += size

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


class FaultHandler(Handler):
    def do_GET(self):
        owner = self.owner
        path = urllib.parse.unquote(self.path.split("?")[0])
        file = owner.root / path.lstrip("/")
        with owner.lock:
            owner.request_count += 1
            number = owner.request_count
            owner.asked.append((path, self.headers.get("Range")))
        fault = owner.fault(path, number, self.headers.get("Range"))
        if not file.is_file():
            return self.respond(404, b"not here")
        if isinstance(fault, int):
            return self.respond(fault, b"no", {"Retry-After": "0"})
        if fault == "reset":
            self.close_connection = True
            return None
        data = file.read_bytes()
        etag = f'"{file.stat().st_mtime_ns:x}-{len(data):x}"'
        if fault == "etag":
            etag = '"another"'
        headers = {"ETag": etag} if owner.etags else {}
        return self.serve(data, headers, fault)


class FaultyServer(Server):
    """A folder whose replies go wrong as fault(path, number of the request, range) says: None, a
    status, "drop", "no length", "reset", "slow", "hang", "whole", "wrong range", "wrong size", "etag"."""

    def __init__(self, root, fault=lambda path, number, asked: None, etags=True):
        super().__init__(FaultHandler)
        self.root, self.fault, self.etags = Path(root), fault, etags
        self.asked = []


# ---- the hub ----


def git_sha(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Repository:
    def __init__(self, files=(), gated=False, private=False):
        self.gated, self.private = gated, private
        self.commits = collections.OrderedDict()  # commit → {path: bytes}
        self.commit(dict(files))

    def commit(self, files):
        listing = "".join(f"{path} {git_sha(data)}\n" for path, data in sorted(files.items()))
        salt = f"{len(self.commits)}\n"
        self.head = hashlib.sha1((salt + listing).encode()).hexdigest()
        self.commits[self.head] = dict(files)
        return self.head

    def at(self, revision):
        return self.commits.get(self.head if revision == "main" else revision)


LARGE = (".safetensors", ".gguf", "tokenizer.json")


def is_large(path, data):
    return path.endswith(LARGE) and len(data) > 0


class HubHandler(Handler):
    def route(self, method):
        hub = self.owner
        with hub.lock:
            hub.request_count += 1
            hub.asked.append((method, self.path))
        path, _, query = self.path.partition("?")
        path = urllib.parse.unquote(path)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        fault = hub.fault(method, path)
        if fault is not None:
            return self.respond(fault, b"", {"Retry-After": "0"})
        for pattern, verb, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and verb == method:
                return action(self, *match.groups(), query=query, body=body)
        return self.respond(404, b"no such page")

    def do_GET(self):
        self.route("GET")

    def do_POST(self):
        self.route("POST")

    def known(self):
        return self.headers.get("Authorization") == f"Bearer {self.owner.token}"

    def repository(self, name):
        """The repository, or None after a refusal was sent."""
        repository = self.owner.repositories.get(name)
        if repository is None or (repository.private and not self.known()):
            self.respond(404 if self.known() else 401, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def files(self, name, revision):
        repository = self.repository(name)
        if repository is None:
            return None
        files = repository.at(revision)
        if files is None:
            self.respond(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return files

    def get_revision(self, name, revision, **_):
        repository = self.repository(name)
        if repository is None:
            return
        if repository.at(revision) is None:
            return self.respond(404, b"", {"X-Error-Code": "RevisionNotFound"})
        self.respond_json({"id": name, "sha": repository.head if revision == "main" else revision})

    def get_tree(self, name, revision, folder, query, **_):
        files = self.files(name, revision)
        if files is None:
            return
        recursive = "recursive=true" in query
        prefix = folder.strip("/") + "/" if folder else ""
        entries, folders = [], set()
        for path, data in sorted(files.items()):
            if not path.startswith(prefix):
                continue
            inner = path[len(prefix):]
            if "/" in inner and not recursive:
                folders.add(prefix + inner.split("/")[0])
                continue
            entry = {"type": "file", "path": path, "size": len(data), "oid": git_sha(data)}
            if is_large(path, data):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data),
                                "pointerSize": 135}
            entries.append(entry)
        entries += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
                    for path in sorted(folders)]
        if prefix and not entries:
            return self.respond(404, b"", {"X-Error-Code": "EntryNotFound"})
        start = int(dict(urllib.parse.parse_qsl(query)).get("cursor", 0))
        page = self.owner.page
        headers = {}
        if start + page < len(entries):
            following = f"{self.owner.url}{urllib.parse.quote(self.path.split('?')[0])}"
            extra = "recursive=true&" if recursive else ""
            headers["Link"] = f'<{following}?{extra}cursor={start + page}>; rel="next"'
        self.respond_json(entries[start:start + page], headers=headers)

    def get_file(self, name, revision, path, **_):
        repository = self.repository(name)
        if repository is None:
            return
        if repository.gated and not self.known():
            return self.respond(401, b"", {"X-Error-Code": "GatedRepo"})
        files = self.files(name, revision)
        if files is None:
            return
        if path not in files:
            return self.respond(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = files[path]
        headers = {"X-Repo-Commit": repository.head if revision == "main" else revision}
        if not is_large(path, data):
            return self.serve(data, {**headers, "ETag": f'"{git_sha(data)}"'})
        oid = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-Etag": f'"{self.owner.linked_etag or oid}"',
                    "X-Linked-Size": str(len(data)),
                    "Location": self.owner.store.sign(oid, data)}
        self.respond(302, b"", headers)

    def create(self, body, **_):
        if not self.known():
            return self.respond(401)
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.owner.repositories:
            return self.respond(409)
        self.owner.repositories[name] = Repository(private=asked.get("private", False))
        self.respond_json({"url": f"{self.owner.url}/{name}"})

    def preupload(self, name, revision, body, **_):
        if not self.known():
            return self.respond(401)
        if self.repository(name) is None:
            return
        answers = []
        for file in json.loads(body)["files"]:
            sample = base64.b64decode(file["sample"])
            assert len(sample) == min(512, file["size"]), file
            answers.append({"path": file["path"], "shouldIgnore": file["path"].endswith(".pyc"),
                            "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"})
        self.respond_json({"files": answers})

    def batch(self, name, body, **_):
        if not self.known():
            return self.respond(401)
        asked = json.loads(body)
        assert asked["operation"] == "upload" and asked["hash_algo"] == "sha256"
        objects = []
        for entry in asked["objects"]:
            entry = {"oid": entry["oid"], "size": entry["size"]}
            if entry["oid"] not in self.owner.store.objects:
                entry["actions"] = self.owner.store.upload_actions(entry, self.owner.url)
            objects.append(entry)
        self.respond_json({"transfer": "multipart", "objects": objects})

    def complete(self, oid, body, **_):
        asked = json.loads(body)
        parts = [self.owner.store.parts.pop((oid, part["partNumber"])) for part in asked["parts"]]
        etags = [hashlib.md5(part).hexdigest() for part in parts]
        assert etags == [part["etag"].strip('"') for part in asked["parts"]]
        self.owner.store.objects[oid] = b"".join(parts)
        self.respond_json({})

    def confirm(self, body, **_):
        if not self.known():
            return self.respond(401)
        asked = json.loads(body)
        data = self.owner.store.objects.get(asked["oid"], b"")
        right = hashlib.sha256(data).hexdigest() == asked["oid"] and len(data) == asked["size"]
        self.respond_json({}, 200 if right else 422)

    def commit(self, name, revision, body, **_):
        if not self.known():
            return self.respond(401)
        repository = self.repository(name)
        if repository is None:
            return
        files = dict(repository.at(revision))
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines[0]["key"] == "header" and lines[0]["value"]["summary"], lines[0]
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile" and value["algo"] == "sha256", line
                if value["oid"] not in self.owner.store.objects:
                    return self.respond(400, b"no such object")
                files[value["path"]] = self.owner.store.objects[value["oid"]]
        self.owner.summaries.append(lines[0]["value"]["summary"])
        commit = repository.commit(files)
        self.respond_json({"commitOid": commit, "commitUrl": f"{self.owner.url}/{name}/commit/{commit}"})


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (rf"/api/models/{NAME}/revision/(.+)", "GET", HubHandler.get_revision),
    (rf"/api/models/{NAME}/tree/([^/]+)(/.*)?", "GET", HubHandler.get_tree),
    (rf"/{NAME}/resolve/([^/]+)/(.+)", "GET", HubHandler.get_file),
    (r"/api/repos/create", "POST", HubHandler.create),
    (rf"/api/models/{NAME}/preupload/([^/]+)", "POST", HubHandler.preupload),
    (rf"/{NAME}.git/info/lfs/objects/batch", "POST", HubHandler.batch),
    (r"/complete/(\w+)", "POST", HubHandler.complete),
    (r"/confirm", "POST", HubHandler.confirm),
    (rf"/api/models/{NAME}/commit/([^/]+)", "POST", HubHandler.commit),
]


class StoreHandler(Handler):
    """Objects behind signed addresses. A token has no business here."""

    def check_token(self):
        if "Authorization" in self.headers:
            self.owner.leaks.append(self.path)

    def do_GET(self):
        store = self.owner
        self.check_token()
        path, _, query = self.path.partition("?")
        oid, signature = path.lstrip("/"), dict(urllib.parse.parse_qsl(query)).get("signature")
        with store.lock:
            store.request_count += 1
            left = store.signatures.get(signature, 0)
            store.signatures[signature] = left - 1
            fault = store.fault(oid, store.request_count, self.headers.get("Range", ""))
        if left <= 0 or oid not in store.objects:
            return self.respond(403, b"expired")
        if isinstance(fault, int):
            return self.respond(fault, b"", {"Retry-After": "0"})
        if fault == "flip":
            data = bytearray(store.objects[oid])
            data[len(data) // 2] ^= 1
            return self.serve(bytes(data), {"ETag": '"store"'})
        self.serve(store.objects[oid], {"ETag": '"store-' + oid[:8] + '"'}, fault)

    def do_PUT(self):
        store = self.owner
        self.check_token()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with store.lock:
            store.request_count += 1
            store.put_count += 1
            fault = store.put_fault(store.put_count)
        if fault is not None:
            return self.respond(fault)
        match = re.fullmatch(r"/upload/(\w+)(?:/(\d+))?", self.path)
        if match[2] is None:
            store.objects[match[1]] = body
        else:
            store.parts[match[1], int(match[2])] = body
        self.respond(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})


class Store(Server):
    def __init__(self):
        super().__init__(StoreHandler)
        self.objects, self.signatures, self.parts = {}, {}, {}
        self.uses = 10**9     # of a signed address before it expires
        self.part_bytes = 0   # of uploads; 0: in one piece
        self.leaks = []       # requests that came with a token
        self.put_count = 0
        self.fault = lambda oid, number, asked: None
        self.put_fault = lambda number: None

    def sign(self, oid, data):
        with self.lock:
            self.objects[oid] = data
            signature = f"s{len(self.signatures)}"
            self.signatures[signature] = self.uses
        return f"{self.url}/{oid}?signature={signature}"

    def upload_actions(self, entry, hub):
        confirm = {"href": f"{hub}/confirm"}
        address = f"{self.url}/upload/{entry['oid']}"
        if not self.part_bytes:
            return {"upload": {"href": address}, "verify": confirm}
        count = -(-entry["size"] // self.part_bytes)
        header = {"chunk_size": str(self.part_bytes)}
        header |= {str(n): f"{address}/{n}" for n in range(1, count + 1)}
        return {"upload": {"href": f"{hub}/complete/{entry['oid']}", "header": header},
                "verify": confirm}


class Hub(Server):
    """repositories: "org/name" → Repository."""

    token = "hf_only_for_the_hub"

    def __init__(self, **repositories):
        super().__init__(HubHandler)
        self.repositories = dict(repositories)
        self.store = Store()
        self.page = 1000
        self.linked_etag = None  # instead of the right one
        self.fault = lambda method, path: None
        self.asked, self.summaries = [], []

    def __enter__(self):
        self.store.__enter__()
        return super().__enter__()

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        self.store.__exit__(*arguments)

    def sent(self):
        return self.bytes_sent + self.store.bytes_sent

    def environment(self, token=None, **more):
        variables = {"HF_ENDPOINT": self.url, **more}
        if token:
            variables["HF_TOKEN"] = token
        return variables


def folder_files(folder):
    """Path inside the folder → bytes."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def clean_environment(home, **variables):
    """The process's environment without what would lead to the user's own models and tokens."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("HF_", "XDG_", "HUGGING")) and not name.endswith("_proxy")}
    return {**kept, "HOME": str(home), **variables}
