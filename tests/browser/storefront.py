"""Clicks through the storefront as a visitor would, in a headless Chromium: in memory, and two of them on one Redis.

Started by run.sh. Each test is a function; a failed one is told at the end, with the page as a picture.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback

from playwright.sync_api import expect, sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = ROOT / "target" / "browser"
# Five times what is expected on a machine that has other things to do.
PATIENCE = 30_000


@contextlib.contextmanager
def process(*command):
    """A process that ends with the test."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()


@contextlib.contextmanager
def storefront(*arguments):
    """A storefront on a free port; its address."""
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "examples" / "storefront"
    with process(str(program), "--listen", "127.0.0.1:0", *arguments) as child:
        said = []
        for line in child.stdout:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found.group(0)
                return
        raise AssertionError(f"the storefront did not open: {''.join(said)}")


@contextlib.contextmanager
def redis():
    """A Redis on a free port; its URL and its process."""
    server = os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
    assert server, "redis-server is missing"
    with tempfile.TemporaryDirectory() as folder:
        # Another process may take the port first.
        for _ in range(10):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            with process(server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder) as child:
                if any("Ready to accept connections" in line for line in child.stdout):
                    yield f"redis://127.0.0.1:{port}", child
                    return
    raise AssertionError("redis-server did not start")


class Visitor:
    """A page of the storefront, and what a visitor does on it."""

    def __init__(self, context, address):
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.problems, self.foreign = [], []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.notice(request.url, address))
        self.page.goto(address)
        expect(self.page.locator("#grid img")).to_have_count(64)

    def notice(self, url, address):
        if not url.startswith((address, "data:")):
            self.foreign.append(url)

    def search(self, text):
        """By keyboard alone."""
        field = self.page.locator("#text")
        field.focus()
        field.fill(text)
        with self.page.expect_response("**/api/search") as answer:
            self.page.keyboard.press("Enter")
        answer.value.finished()

    def look(self, name):
        with self.page.expect_response("**/api/products/*") as answer:
            self.page.get_by_role("button", name=f"Look at {name}", exact=True).click()
        answer.value.finished()
        return answer.value.headers.get("x-gateway")

    def add(self, name):
        before = int(self.page.locator("#cart-count").inner_text())
        self.page.get_by_role("button", name=f"Add {name} to the cart", exact=True).click()
        expect(self.page.locator("#cart-count")).to_have_text(str(before + 1))

    def tab(self, name):
        self.page.locator(f"[data-view={name}]").click()

    def login(self, name):
        self.page.fill("#name", name)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.locator("#user-name")).to_have_text(name)

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def says(self, what, title, layer):
        """The newest line in "What the gateway did" with this title."""
        line = self.page.locator(f'#log li[data-title="{title}"]').first
        expect(line.locator(".badge")).to_have_text(what)
        expect(line).to_contain_text(layer)

    def picture(self, name):
        PICTURES.mkdir(parents=True, exist_ok=True)
        file = PICTURES / f"{name}.png"
        self.page.screenshot(path=file, full_page=True)
        assert file.stat().st_size > 30_000, f"{file} shows next to nothing"


def test_a_search_is_a_post_and_comes_from_the_store_the_second_time(visitor):
    visitor.search("mug")
    visitor.says("MISS", "POST /api/search", "CacheLayer")
    expect(visitor.page.locator("#grid img")).to_have_count(8)
    visitor.search("mug")
    visitor.says("HIT", "POST /api/search", "CacheLayer")
    visitor.search("lamp")
    visitor.says("MISS", "POST /api/search", "CacheLayer")
    visitor.search("no such thing")
    expect(visitor.page.locator("#grid")).to_contain_text("Nothing found")
    visitor.tab("products")
    expect(visitor.page.locator("#grid img")).to_have_count(64)


def test_what_is_put_into_the_cart_is_bought_and_is_in_the_history_and_in_the_profile(visitor):
    visitor.add("Amber mug")
    visitor.add("Amber mug")
    visitor.add("Coral lamp")
    visitor.says("BYPASS", "POST /api/cart/1", "SessionLayer")
    visitor.tab("cart")
    expect(visitor.page.locator("#cart-items")).to_contain_text("2 × Amber mug")
    expect(visitor.page.locator("#cart-total")).to_have_text("Total: 85.80 €")
    visitor.press("Buy")
    expect(visitor.page.locator("#cart-total")).to_contain_text("Log in to buy")
    # The visitor's cart becomes that of the user.
    visitor.login("Ada")
    expect(visitor.page.locator("#cart-count")).to_have_text("3")
    visitor.press("Buy")
    expect(visitor.page.locator("#orders")).to_contain_text("2 × Amber mug, 1 × Coral lamp")
    expect(visitor.page.locator("#orders")).to_contain_text("85.80 €")
    expect(visitor.page.locator("#cart-count")).to_have_text("0")
    visitor.tab("profile")
    content = visitor.page.locator("#profile-content")
    expect(content).to_contain_text("Complete: three services")
    for part in ["Ada (identity)", "85.80 €", "For you (products)"]:
        expect(content).to_contain_text(part)
    visitor.picture("profile")


def test_an_optional_part_that_fails_leaves_the_others(visitor):
    visitor.login("Grace")
    visitor.press("Take down history")
    visitor.tab("profile")
    content = visitor.page.locator("#profile-content")
    expect(content).to_contain_text("Not complete")
    expect(content).to_contain_text("Grace (identity)")
    expect(content).to_contain_text("failed with 502")
    visitor.press("Bring back history")
    visitor.tab("profile")
    expect(content).to_contain_text("Complete: three services")


def test_a_stampede_of_500_requests_is_one_call_to_the_service(visitor):
    visitor.press("Start a stampede")
    expect(visitor.page.locator("#stampede-requests")).to_have_text("500")
    expect(visitor.page.locator("#stampede-origin")).to_have_text("1")
    visitor.says("COALESCED", "stampede: GET /api/products/…", "CoalesceLayer")
    expect(visitor.page.locator("#stampede-text")).not_to_contain_text("FAILED")
    visitor.page.wait_for_function("Number(document.getElementById('n-saved').textContent) >= 499")


def test_a_purge_makes_a_miss_and_a_soft_one_is_stale_at_once(visitor):
    visitor.look("Fern mug")
    assert visitor.look("Fern mug") == "HIT"
    visitor.press("Purge “catalogue”")
    visitor.says("BYPASS", "purge: catalogue", "invalidate")
    assert visitor.look("Fern mug") == "MISS"
    visitor.press("Soft purge")
    visitor.says("BYPASS", "soft purge: catalogue", "invalidate")
    assert visitor.look("Fern mug") == "STALE"
    # It was fetched anew in the background.
    for _ in range(50):
        if visitor.look("Fern mug") == "HIT":
            return
        visitor.page.wait_for_timeout(200)
    raise AssertionError("it stays stale")


def test_what_the_store_knows_is_served_while_the_service_is_down(visitor):
    visitor.look("Sand mug")
    visitor.press("Take down products")
    visitor.press("Soft purge")
    visitor.says("BYPASS", "soft purge: catalogue", "invalidate")
    for _ in range(3):
        assert visitor.look("Sand mug") == "STALE"
    visitor.press("Bring back products")
    expect(visitor.page.get_by_role("button", name="Take down products")).to_be_visible()


def test_warming_fetches_what_is_not_fresh(visitor):
    visitor.press("Purge “catalogue”")
    visitor.says("BYPASS", "purge: catalogue", "invalidate")
    visitor.press("Warm the cache")
    visitor.says("BYPASS", "warm", "stored")
    assert visitor.look("Plum mug") == "HIT"


def test_the_keyboard_is_enough(visitor):
    page = visitor.page
    page.reload()
    expect(page.locator("#grid img")).to_have_count(64)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.view") == "products"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus is seen"
    before = int(page.locator("#cart-count").inner_text())
    page.get_by_role("button", name="Add Coral lamp to the cart").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#cart-count")).to_have_text(str(before + 1))
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input')].filter((e) => e.offsetParent && !e.textContent.trim()
            && !e.getAttribute('aria-label') && !e.labels?.length).length"""
    )
    assert nameless == 0, "everything that can be pressed has a name"


def test_it_is_clean_on_a_phone_and_in_the_dark(visitor):
    page = visitor.page
    visitor.picture("light")
    page.emulate_media(color_scheme="dark")
    visitor.picture("dark")
    page.set_viewport_size({"width": 390, "height": 844})
    visitor.picture("phone")
    for width in [320, 390, 768]:
        page.set_viewport_size({"width": width, "height": 844})
        wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0, f"at {width} it scrolls sideways by {wider}"


def test_nothing_comes_from_elsewhere_and_nothing_breaks(visitor):
    assert not visitor.foreign, visitor.foreign
    assert not visitor.problems, visitor.problems


def two_storefronts_on_one_redis_share_carts_and_caches_and_live_with_a_frozen_redis(browser):
    with redis() as (url, server), storefront("--redis", url) as one, storefront("--redis", url) as other:
        context = browser.new_context()
        first = Visitor(context, one)
        first.add("Slate chair")
        # Cookies belong to the host, whatever the port: the same visitor at the other one.
        second = Visitor(context, other)
        expect(second.page.locator("#cart-count")).to_have_text("1")
        # Another one where a busy machine was slower than the time that Redis has.
        names = ["Slate chair", "Coral lamp", "Fern mug", "Sand mug"]
        assert any(first.look(name) == "MISS" and second.look(name) == "HIT" for name in names)
        second.add("Slate chair")
        first.tab("cart")
        expect(first.page.locator("#cart-items")).to_contain_text("2 × Slate chair")
        second.press("Purge “catalogue”")
        second.says("BYPASS", "purge: catalogue", "invalidate")
        first.tab("products")
        assert first.look("Slate chair") == "MISS"
        first.press("Start a stampede")
        # One; some more where a busy machine was slower than the time that Redis has.
        expect(first.page.locator("#stampede-origin")).to_have_text(re.compile(r"^([1-9]|1\d|20)$"))
        first.press("Freeze Redis 5 s")
        first.says("BYPASS", "freeze Redis", "RedisBackend")
        # And for longer than anybody may wait.
        server.send_signal(signal.SIGSTOP)
        try:
            first.page.request.get(f"{one}/images/1.svg", timeout=PATIENCE)
        finally:
            server.send_signal(signal.SIGCONT)
        context.close()


def main():
    failed = []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=arguments)
        with storefront() as address:
            context = browser.new_context(viewport={"width": 1360, "height": 900}, color_scheme="light")
            visitor = Visitor(context, address)
            tests = [test for name, test in globals().items() if name.startswith("test_")]
            run_all(failed, tests, visitor)
        run_all(failed, [two_storefronts_on_one_redis_share_carts_and_caches_and_live_with_a_frozen_redis], browser)
        browser.close()
    print(f"\nstorefront: {len(failed)} failed" if failed else "\nstorefront: all passed")
    sys.exit(bool(failed))


def run_all(failed, tests, subject):
    for test in tests:
        name = test.__name__.removeprefix("test_")
        try:
            if isinstance(subject, Visitor) and subject.page.locator("#user").is_visible():
                subject.press("Log out")
            if isinstance(subject, Visitor):
                subject.tab("products")
                expect(subject.page.locator("#grid img")).to_have_count(64)
            test(subject)
            print(f"{name} ... ok", flush=True)
        except Exception:
            failed.append(name)
            print(f"{name} ... FAILED", flush=True)
            traceback.print_exc()
            if isinstance(subject, Visitor):
                subject.picture(f"failed-{name}")


main()
