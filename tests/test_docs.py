"""The documentation as a site: it builds strictly, its links lead somewhere, it loads nothing."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Tags that make a browser fetch something, and where they say what."""


@dataclass
class Page(HTMLParser):
    """What an HTML page points to, and what can be pointed to in it."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values and values.get("rel") != "canonical":
            self.loaded.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=repository,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    read = {}
    for path in sorted(site.rglob("*.html")):
        read[path] = Page()
        read[path].feed(path.read_text("utf-8"))
    return read


def test_every_page_can_be_reached(site: Path, pages: dict[Path, Page], repository: Path) -> None:
    written = {
        path.relative_to(repository / "docs").with_suffix(".html")
        for path in (repository / "docs").rglob("*.md")
    }
    start = pages[site / "index.html"]
    reached = {Path(unquote(urlsplit(link).path)) for link in start.links}
    assert written - reached == set()


def test_every_link_of_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    broken = [
        f"{path.relative_to(site)}: {link}"
        for path, page in pages.items()
        if path.name != "404.html"  # its links begin at the root of a server
        for link in {*page.links, *page.loaded}
        if not _leads_somewhere(path, link, pages)
    ]
    assert broken == []


def _leads_somewhere(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return False
    return (
        not parts.fragment
        or target not in pages
        or unquote(parts.fragment) in _anchors(pages[target])
    )


def _anchors(page: Page) -> set[str]:
    return page.anchors | {"__skip"}


def test_the_site_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    elsewhere = {link for page in pages.values() for link in page.loaded if urlsplit(link).netloc}
    assert elsewhere == set()
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert not [found for style in styles for found in re.findall(r"url\(\W?https?:[^)]*", style)]


MARKDOWN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "packages/*/README.md")


def test_links_of_the_pages_outside_the_site_lead_somewhere(repository: Path) -> None:
    broken = [
        f"{page.relative_to(repository)}: {link}"
        for pattern in MARKDOWN
        for page in sorted(repository.glob(pattern))
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
        if not _exists(page, link)
    ]
    assert broken == []


def _exists(page: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme:
        return True
    target = page.parent / unquote(parts.path) if parts.path else page
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M) if parts.fragment else []
    return not parts.fragment or parts.fragment in map(_slug, headings)


def _slug(heading: str) -> str:
    """The anchor that code hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_files_that_the_pages_name_exist(repository: Path) -> None:
    files = [
        f"/{path.relative_to(repository).as_posix()}"
        for folder in ("packages", "pipelines", "tests", "tools", "docs")
        for path in (repository / folder).rglob("*.py")
    ]
    missing = [
        f"{page.name}: {name}"
        for page in (*(repository / "docs").glob("*.md"), repository / "CONTRIBUTING.md")
        if page.name != "lab-log.md"  # dated: what it names may be gone
        for name in re.findall(r"`((?:[\w-]+/)+[\w-]+\.py)\b", page.read_text("utf-8"))
        if not any(path.endswith(f"/{_below_package(name)}") for path in files)
    ]
    assert missing == []


def _below_package(name: str) -> str:
    """`trainer/config/run.py` is how the pages shorten its path below src."""
    return name.removeprefix("boxdepth/")
