"""Check a built site: its links, and every page in a browser as wide as a desk's and a phone's.

    python docs/check_site.py docs/_build/html

Two checks. The first reads the HTML files: every link and picture inside the site leads to a file,
and every fragment to an element that has that id. The second opens every page in Chromium, through
a server of its own, and wants no message of a warning or an error in the console, no exception, no
failed request, none to another host, no formula that MathJax cannot read, and no page wider than
the window: what is wide scrolls in a box of its own.

The second needs the package playwright and a Chromium or Chrome on the PATH. Without them the
script fails; ``--no-browser`` leaves that check out.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import http.server
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

WINDOWS = {"desk": (1280, 800), "phone": (390, 844)}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No host but our own has an address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
N_TABS = 4
TIMEOUT = 60_000  # milliseconds for one page; only a page that hangs takes so long

# The page after its formulas are set: what is too wide, and formulas with an error.
INSPECT = """
async () => {
    if (window.MathJax && window.MathJax.startup) await window.MathJax.startup.promise;
    await document.fonts.ready;
    const root = document.documentElement;
    const name = (element) => {
        const classes = [...element.classList].map((c) => "." + c).join("");
        return element.tagName.toLowerCase() + (element.id ? "#" + element.id : "") + classes;
    };
    // A box may scroll sideways, but not the page nor what holds its title, the whole article.
    const whole = [];
    for (let e = document.querySelector("h1"); e; e = e.parentElement) whole.push(e);
    const box = (element) => {
        let e = element.parentElement;
        while (e && !whole.includes(e) && getComputedStyle(e).overflowX === "visible")
            e = e.parentElement;
        return e && !whole.includes(e);
    };
    const wide = [];
    for (const e of whole.concat(root)) {
        if (e !== root && getComputedStyle(e).overflowX === "visible") continue;
        if (e.scrollWidth <= e.clientWidth) continue;
        const right = e.getBoundingClientRect().left + e.clientLeft + e.clientWidth;
        const out = [...e.querySelectorAll("*")].filter(
            (part) => part.getBoundingClientRect().right > right + 0.5 && !box(part));
        const inner = out.filter((p) => !out.some((other) => other !== p && p.contains(other)));
        wide.push(`${name(e)} is ${e.scrollWidth} px wide in ${e.clientWidth}: `
            + inner.slice(0, 3).map(name).join(", "));
        break;
    }
    const formulas = [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map(
        (e) => "formula: " + (e.getAttribute("data-mjx-error") || e.textContent));
    return wide.concat(formulas);
}
"""


class Page(HTMLParser):
    """What a page refers to, and the ids that others can refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element's id and of what it refers to."""
        values = {name: value for name, value in attrs if value is not None}
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        if "href" in values:
            (self.links if tag == "a" else self.loads).add(values["href"])
        if "src" in values:
            self.loads.add(values["src"])
        sources = [source.split() for source in values.get("srcset", "").split(",")]
        self.loads.update(source[0] for source in sources if source)


def pages_of(site: Path) -> list[Path]:
    """The HTML pages of the site; in its directory of static files are templates of the theme."""
    return [path for path in sorted(site.rglob("*.html")) if path.parent != site / "_static"]


def broken_links(site: Path) -> dict[str, list[str]]:
    """For every page with broken references, what is wrong with them."""
    pages = {path: Page(path.read_text("utf-8")) for path in pages_of(site)}
    problems = defaultdict(list)
    for path, page in pages.items():
        for reference in sorted(page.links | page.loads):
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                if reference in page.loads and parts.scheme != "data":
                    problems[str(path.relative_to(site))].append(f"loads {reference}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            fragment = unquote(parts.fragment)
            if not target.is_file():
                problems[str(path.relative_to(site))].append(f"no file for {reference}")
            elif fragment and target in pages and fragment not in pages[target].ids:
                problems[str(path.relative_to(site))].append(f"no such place: {reference}")
    return problems


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address at which a server of ours shows the site."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Write no log."""

    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


async def open_page(tab: Any, address: str, page: str, picture: Path | None) -> list[str]:
    """Open a page and say what is wrong with it."""
    problems: list[str] = []

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"console {message.type}: {message.text}")

    def on_request(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            problems.append(f"request to another host: {request.url}")

    def on_response(response: Any) -> None:
        if response.status >= 400:
            problems.append(f"status {response.status}: {response.url}")

    def on_failure(request: Any) -> None:
        # What the last page still wanted is aborted when the tab goes to this one.
        if request.failure != "net::ERR_ABORTED":
            problems.append(f"request failed ({request.failure}): {request.url}")

    listeners = {
        "console": on_console,
        "request": on_request,
        "response": on_response,
        "requestfailed": on_failure,
        "pageerror": lambda error: problems.append(f"exception: {error}"),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    await tab.goto(address + page, wait_until="load", timeout=TIMEOUT)
    problems += await tab.evaluate(INSPECT)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        await tab.screenshot(path=picture, full_page=True)
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    return problems


async def browse(site: Path, browser_path: str, pictures: Path | None) -> dict[str, list[str]]:
    """For every page and window with problems, what the browser had to say."""
    from playwright.async_api import async_playwright

    problems: dict[str, list[str]] = {}
    pages = [path.relative_to(site).as_posix() for path in pages_of(site)]
    waiting = [(window, page) for page in pages for window in WINDOWS]
    with served(site) as address:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=browser_path, args=list(FLAGS)
            )

            context = await browser.new_context()

            async def work() -> None:
                tab = await context.new_page()
                while waiting:
                    window, page = waiting.pop(0)
                    width, height = WINDOWS[window]
                    await tab.set_viewport_size({"width": width, "height": height})
                    name = page.removesuffix(".html").replace("/", "-")
                    picture = pictures / window / f"{name}.png" if pictures else None
                    found = await open_page(tab, address, page, picture)
                    if found:
                        problems[f"{page} ({window}, {width} px)"] = found

            await asyncio.gather(*(work() for _ in range(N_TABS)))
            await browser.close()
    return problems


def find_browser() -> str:
    """The path of a browser that playwright, if it is there, can drive."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        sys.exit("The check needs the package playwright: pip install playwright, or --no-browser.")
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    sys.exit("No Chromium or Chrome on the PATH. Install one, or check with --no-browser.")


def main() -> None:
    """Run both checks and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="directory of the built HTML pages")
    parser.add_argument("--no-browser", action="store_true", help="check the links alone")
    parser.add_argument("--screenshots", type=Path, help="directory to save every page in")
    arguments = parser.parse_args()
    site = arguments.site.resolve()
    n_pages = len(pages_of(site))
    if not n_pages:
        sys.exit(f"{arguments.site} has no HTML pages: build the site first.")
    browser = None if arguments.no_browser else find_browser()
    problems = dict(broken_links(site))
    if browser is not None:
        problems |= asyncio.run(browse(site, browser, arguments.screenshots))
    for page, found in sorted(problems.items()):
        print(page)
        for problem in dict.fromkeys(found):
            print(f"    {problem}")
    seen = "not opened in a browser" if browser is None else f"opened {' and '.join(WINDOWS)}"
    if problems:
        sys.exit(f"{n_pages} pages, {seen}: problems in {len(problems)} of them.")
    print(f"{n_pages} pages, {seen}: no problems.")


if __name__ == "__main__":
    main()
