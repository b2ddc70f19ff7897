"""Hooks of mkdocs: two languages in one site, and links to files outside docs/.

English pages are NAME.md, Chinese ones zh/NAME.md. Each page gets its own language's navigation and interface.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = "changelog.md"  # CHANGELOG.md of the repository, as a page
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
LEFT_OUT = (".tex", "tables.html")  # as mkdocs.yml has it
CHINESE = "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef“”"
STOPS = "\u3001\u3002\uff09\uff0c\uff1a\uff1b"
BROKEN = re.compile(rf"(?<=[{CHINESE}])\n *(?=[{CHINESE}])|(?<=[{STOPS}])\n *(?!\d+\. )(?=\w|\*\S|\*\*\S|\[|`(?!``))")


def on_files(files: Any, config: Any) -> Any:
    """Add the changelog, which is outside docs/."""
    from mkdocs.structure.files import File

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, CHANGELOG, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Write links to files that the site does not contain, such as those outside docs/, as their names.

    Lines of Chinese are joined: a browser would show a space between them.
    """
    depth = len(PurePosixPath(page.file.src_uri).parent.parts)

    def outside(match: re.Match[str]) -> str:
        target = match[2].partition("#")[0]
        missing = target.count("../") > depth or ("://" not in target and target.endswith(LEFT_OUT))
        return match[1] if missing else match[0]

    return LINK.sub(outside, BROKEN.sub("", markdown))


def on_page_context(context: dict[str, Any], page: Any, config: Any, nav: Any) -> dict[str, Any]:
    """Show the navigation, interface and counterpart of the page's language."""
    is_chinese = page.file.src_uri.startswith("zh/")
    config.theme["language"] = "zh" if is_chinese else "en"
    chinese = next(item for item in nav.items if item.title == "中文")
    items = chinese.children if is_chinese else [item for item in nav.items if item is not chinese]
    context["nav"] = _Navigation(items, nav)
    pages = {item.file.src_uri: item.url for item in nav.pages}
    name = page.file.src_uri.removeprefix("zh/")
    english, other = pages.get(name, "index.html"), pages.get(f"zh/{name}", "zh/index.html")
    for alternate in config.extra["alternate"]:
        alternate["link"] = other if alternate["lang"] == "zh" else english
    return context


class _Navigation:
    """Some items of a navigation, for the theme."""

    def __init__(self, items: list[Any], nav: Any) -> None:
        self.items, self.pages, self.homepage = items, nav.pages, nav.homepage

    def __iter__(self) -> Any:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
