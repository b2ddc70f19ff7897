"""report.html: a comparison in one file that needs nothing else, with the text and the images of compare.md."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from utils.comparison.report_markdown import image, to_html
from utils.files import atomic_write

KINDS = {".png": "png", ".jpg": "jpeg"}

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #ffffff; --line: #d8dce3; --soft: #f3f5f8;
  --shade: #1c233040; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --paper: #14181f; --line: #39414d; --soft: #1e242d; --shade: #000000a0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.scroll { overflow-x: auto; background: linear-gradient(90deg, var(--paper) 40%, transparent) 0 / 2.5rem 100% local,
  linear-gradient(270deg, var(--paper) 40%, transparent) 100% 0 / 2.5rem 100% local,
  linear-gradient(90deg, var(--shade), transparent) 0 / .7rem 100% scroll,
  linear-gradient(270deg, var(--shade), transparent) 100% 0 / .7rem 100% scroll; background-repeat: no-repeat; }
.scroll + .scroll { margin-top: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td.long { min-width: 10.5rem; white-space: normal; }
.whole { white-space: nowrap; }
thead th { background: var(--soft); }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .82rem; }
code { font-size: .88em; background: var(--soft); padding: 0 .2em; }
pre code { padding: 0; }
img { max-width: 100%; height: auto; background: #ffffff; }
figure { margin: 1rem 0; }
figcaption { font-size: .88rem; margin-top: .3rem; }
ul { padding-left: 1.4rem; }
@media (max-width: 45rem) {
  table { font-size: .82rem; }
  th, td { padding: .3rem .4rem; }
  figure img { max-width: 46rem; }
}
"""


@dataclass(frozen=True, kw_only=True)
class ReportImage:
    """An image of the report, a .png or .jpg file beside it: where that is, and what it shows."""

    path: Path
    caption: str

    def markdown(self, folder: Path) -> str:
        """Return it as part of a markdown file in a folder above it."""
        return image(quote(self.path.relative_to(folder).as_posix()), self.caption)

    def html(self) -> str:
        """Return it as part of a page that needs no other file.

        Raises:
            OSError: it cannot be read.
        """
        data = base64.b64encode(self.path.read_bytes()).decode("ascii")
        kind, caption = KINDS[self.path.suffix], html.escape(self.caption)
        return (
            f'<figure><div class="scroll"><img src="data:image/{kind};base64,{data}" alt="{caption}"></div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )


@dataclass(frozen=True, kw_only=True)
class ReportFigures:
    """The images of a report, as far as there are any.

    Attributes:
        overview: curves, differences and costs.
        examples: validation images on which the models differ most.
        examples_note: whose images these are, where not all models have some.
        sampling: where AKConv samples.
    """

    overview: Sequence[ReportImage] = ()
    examples: Sequence[ReportImage] = ()
    examples_note: str = ""
    sampling: Sequence[ReportImage] = ()

    def all(self) -> list[ReportImage]:
        """Return them in the order in which they are shown."""
        return [*self.overview, *self.examples, *self.sampling]


def write_report(text: str, *, title: str, images: Sequence[ReportImage] = (), path: Path) -> Path:
    """Write report.html.

    Args:
        text: of compare.md.
        title: of the browser's tab.
        images: that the text links to; they become part of the page.
        path: where to write, the folder of compare.md.

    Raises:
        RunError: it cannot be written.
    """
    body = to_html(text)
    for shown in images:
        body = body.replace(to_html(shown.markdown(path.parent)), shown.html(), 1)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    return atomic_write(path, page)
