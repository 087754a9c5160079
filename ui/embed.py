#!/usr/bin/env python3
"""Makes the C++ source that holds the web page, and the policy under which it may be served.

    ui/embed.py PAGE.html OUT.cpp

OUT.cpp.policy holds the policy alone, for tests without the program. The policy names the hash of every script and style within the page, so that nothing else runs.
"""

import base64
import hashlib
import pathlib
import re
import sys

HEAD = """// Made by ui/embed.py. Not to be edited.
#include "server/web_page.h"

namespace sluice::server {
namespace {

// char is signed on some machines and not on others.
constexpr unsigned char kHtml[] = {
"""
TAIL = """}};

}}  // namespace

Page web_page() {{
  return {{{{reinterpret_cast<const char*>(kHtml), sizeof(kHtml)}}, "{policy}"}};
}}

}}  // namespace sluice::server
"""


def hashes(html, element):
    """The sources of a policy's directive for the inline elements of that name."""
    # Both at once, from left to right: a script may hold the text of a style.
    found = re.findall(r"<(script|style)(?:\s[^>]*)?>(.*?)</\1\s*>", html, re.S)
    digests = (hashlib.sha256(text.encode()).digest() for name, text in found if name == element)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"


def policy(html):
    return "; ".join([
        "default-src 'none'",
        f"script-src {hashes(html, 'script')}",
        f"style-src {hashes(html, 'style')}",
        "connect-src 'self'", "frame-src 'self'", "img-src data:",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"])


def main():
    page, out = map(pathlib.Path, sys.argv[1:])
    # Browsers hash a text in which line ends are LF.
    html = page.read_text(encoding="utf-8").replace("\r\n", "\n")
    data = html.encode()
    rows = [", ".join(str(byte) for byte in data[at:at + 24])
            for at in range(0, len(data), 24)]
    out.write_text(HEAD + ",\n".join(rows) + TAIL.format(policy=policy(html)))
    pathlib.Path(f"{out}.policy").write_text(policy(html))


if __name__ == "__main__":
    main()
