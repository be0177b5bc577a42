"""The source of the website, and the check of the result.

    docs.py source DIRECTORY    the pages of docs/SUMMARY.md, with links that are valid there, and what they link to
    docs.py check DIRECTORY     every link in the pages of the website leads to a page, a file and an anchor of it
"""

import html.parser
import os
import pathlib
import re
import shutil
import sys
import urllib.parse

LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
SUMMARY = pathlib.PurePath("docs/SUMMARY.md")


def target(page: pathlib.PurePath, link: str) -> pathlib.PurePath:
    """The file of the repository that a link of a page leads to."""
    return pathlib.PurePath(os.path.normpath(page.parent / link))


def place(path: pathlib.PurePath) -> pathlib.PurePath:
    """Where a file of the repository is in the source of the website: the pages of docs/ are at the top."""
    return path.relative_to("docs") if path.is_relative_to("docs") else path


def with_links(page: pathlib.PurePath, text: str, linked: set[pathlib.PurePath]) -> str:
    """The page with links for the website. Adds the files that it links to."""

    def changed(match: re.Match[str]) -> str:
        path, mark, anchor = match[0].partition("#")
        if ":" in path or not path:
            return match[0]
        file = target(page, path)
        linked.add(file)
        end = "/index.html" if pathlib.Path(file).is_dir() else ""
        return os.path.relpath(place(file), place(page).parent) + end + mark + anchor

    return LINK.sub(changed, text)


def listing(directory: pathlib.Path, place: pathlib.Path) -> None:
    """Copies a directory, with a page that lists its files."""
    files = sorted(path.name for path in directory.iterdir() if path.is_file())
    place.mkdir(parents=True, exist_ok=True)
    for name in files:
        shutil.copyfile(directory / name, place / name)
    items = "".join(f'<li><a href="{name}">{name}</a>' for name in files)
    page = f'<!doctype html><meta charset="utf-8"><title>{directory}</title><h1>{directory}</h1><ul>{items}</ul>\n'
    (place / "index.html").write_text(page, encoding="utf-8")


def source(directory: pathlib.Path) -> None:
    """Writes the pages and what they link to."""
    shutil.rmtree(directory, ignore_errors=True)
    summary = pathlib.Path(SUMMARY).read_text(encoding="utf-8")
    pages = {SUMMARY} | {target(SUMMARY, link) for link in LINK.findall(summary)}
    linked: set[pathlib.PurePath] = set()
    for page in pages:
        text = with_links(page, pathlib.Path(page).read_text(encoding="utf-8"), linked)
        file = directory / place(page)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for path in map(pathlib.Path, linked - pages):
        file = directory / place(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            listing(path, file)
        else:
            shutil.copyfile(path, file)


class Page(html.parser.HTMLParser):
    """The links and the anchors of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what the tag refers to or can be referred to by."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and tag != "base" and value:
                self.links.add(value)


def check(directory: pathlib.Path) -> None:
    """Ends with an error if a link leads nowhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in directory.rglob("*.html")}
    # It is shown for any address, so that its links cannot be relative.
    pages.pop(directory / "404.html", None)
    broken, links = [], 0
    for path, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            links += 1
            file = pathlib.Path(os.path.normpath(path.parent / urllib.parse.unquote(url.path))) if url.path else path
            anchors = pages[file].anchors if file in pages else {""}
            if not file.is_file() or urllib.parse.unquote(url.fragment) not in anchors:
                broken.append(f"{path.relative_to(directory)}: {link}")
    if broken or not links:
        sys.exit("docs.py: links that lead nowhere:\n" + "\n".join(sorted(broken)))
    print(f"{len(pages)} pages, {links} links")


def main() -> None:
    {"source": source, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))


main()
