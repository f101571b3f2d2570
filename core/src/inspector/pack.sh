#!/bin/sh
# Packs page.html into page.html.gz, and writes the hashes of its style and script into the policy in
# mod.rs. Run it after every change of the page; a test holds the three together.
set -eu
cd "$(dirname "$0")"
gzip -9nc page.html > page.html.gz
python3 - <<'PYTHON'
import base64, hashlib, pathlib, re

page = pathlib.Path("page.html").read_text()
code = pathlib.Path("mod.rs").read_text()
for kind in ("script", "style"):
    text = re.search(f"<{kind}>(.*?)</{kind}>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    code, count = re.subn(f"{kind}-src 'sha256-[^']*'", f"{kind}-src 'sha256-{digest}'", code)
    assert count == 1, kind
pathlib.Path("mod.rs").write_text(code)
PYTHON
