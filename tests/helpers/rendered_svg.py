"""SVG files in a real browser: where their texts are."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# matplotlib draws a text as outlines in a group called text_1, text_2, ... whose comment has its letters.
SCRIPT = """
const found = [...document.querySelectorAll("svg")].map(svg => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text, g[id^="text_"]')].map(element => {
    const comment = [...element.childNodes].find(node => node.nodeType === Node.COMMENT_NODE);
    const box = element.getBoundingClientRect();
    const corners = [box.left - frame.left, box.top - frame.top, box.right - frame.left, box.bottom - frame.top];
    return [(comment ?? element).textContent.trim(), ...corners];
  });
  return {width: frame.width, height: frame.height, texts: texts.filter(text => text[3] > text[1])};
});
document.body.innerHTML = "<pre>" + JSON.stringify(found).replaceAll("<", "&lt;") + "</pre>";
"""
TOLERANCE = 0.3  # pixels


def text_faults(paths: Sequence[Path], folder: Path) -> list[str]:
    """Return which texts intersect each other or leave the drawing."""
    drawings = "".join(re.sub(r"^.*?(?=<svg)", "", path.read_text(encoding="utf-8"), flags=re.S) for path in paths)
    page = folder / "drawings.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{drawings}<script>{SCRIPT}</script>", encoding="utf-8")
    assert CHROMIUM is not None
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", profile, "--dump-dom", page.as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r"<pre>(.*)</pre>", dumped, re.S)
    assert match is not None, dumped[:500]
    found = json.loads(html.unescape(match.group(1)))
    assert len(found) == len(paths)
    faults = []
    for path, drawing in zip(paths, found, strict=True):
        assert drawing["texts"], f"{path.name} has no text"
        for index, (text, left, top, right, bottom) in enumerate(drawing["texts"]):
            if min(left, top) < -TOLERANCE or right > drawing["width"] + 1 or bottom > drawing["height"] + 1:
                faults.append(f"{path.name}: {text!r} leaves the drawing")
            for other, x1, y1, x2, y2 in drawing["texts"][index + 1 :]:
                if min(right, x2) - max(left, x1) > TOLERANCE and min(bottom, y2) - max(top, y1) > TOLERANCE:
                    faults.append(f"{path.name}: {text!r} intersects {other!r}")
    return faults
