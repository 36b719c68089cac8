"""Checks of a page that is served, and driven in a browser."""

import json
import time
import urllib.request

import documents
import figures
import server
from browser import Browser, wait

# The folder that keeps pictures, if there is one.
SHOTS = None


class Live:
    """A browser on a controller in miniature. At the end nothing may have left the host, and the page had no complaint."""

    def __init__(self, **given):
        document = documents.whole(**given)
        parts = {key: document.pop(key) for key in ("history", "history_from", "slow")}
        self.controller = server.Controller(
            document, {key: parts[key] for key in ("history", "history_from")}, {"slow": parts["slow"]}
        )

    def __enter__(self):
        self.browser = Browser().__enter__()
        self.browser.look(1280, 900, False)
        self.browser.go(self.controller.address)
        self.until("the page is live", 'document.documentElement.dataset.link === "live"')
        return self

    def __exit__(self, kind, *_):
        try:
            if not kind:
                self.browser.leave(self.controller.address)
        finally:
            self.browser.__exit__()

    def until(self, what, script, seconds=10):
        return wait(what, lambda: self.browser.run(f"return {script}"), seconds)

    def value(self, figure, **more):
        data = "".join(f'[data-{key}="{value}"]' for key, value in ({"figure": figure} | more).items())
        return self.browser.run("return document.querySelector(arguments[0])?.dataset.value ?? null", data)

    def count(self, selector):
        return self.browser.run("return document.querySelectorAll(arguments[0]).length", selector)

    def type(self, **texts):
        for name, text in texts.items():
            self.browser.write(name.replace("_", "-"), text)

    def update(self, **given):
        at = self.controller.state["at"]
        self.controller.state = documents.state(**given, at=at)


def check_a_live_page_shows_the_numbers_of_its_document():
    with Live(moved={1: 102}, down=("101.2",)) as live:
        live.until("all is drawn", "document.querySelectorAll('#map .square').length === 24")
        live.until("requests that were slow", "document.querySelectorAll('#slow .late').length === 3")
        figures.compare(
            live.browser.elements(), live.controller.state | live.controller.history | live.controller.slow
        )


def check_a_join_is_watched_square_by_square():
    with Live(shards=12, groups=2) as live:
        owners = [101] * 6 + [102] * 6
        for arrived in range(5):
            owners[arrived] = 103
            live.update(shards=12, groups=3, owners=list(owners))
            live.until(
                f"{arrived + 1} squares",
                f"document.querySelectorAll('#map [data-group=\"103\"]').length === {arrived + 1}",
            )
        live.until(
            "its row",
            "document.querySelector('[data-figure=shards][data-group=\"103\"]').dataset.value === '5'",
        )


def check_a_past_that_is_given_is_in_the_charts_from_the_start_and_once():
    live = Live()
    live.controller.past, live.controller.cut = documents.past([900.0, None, 10.0]), 0.5
    with live:
        most = "document.querySelector('[data-figure=most][data-group=\"101\"]')"
        live.until("the most of the past", f"{most}.dataset.value === '900'")
        # The streams that follow tell it again.
        time.sleep(2)
        times = live.browser.run("return page.past.times.tail(3600)")
        assert times[0] == documents.FIRST_AT / 1000 - 3 and times == sorted(set(times)), times


def check_a_killed_leader_shows_as_a_mark():
    with Live() as live:
        # The marks of the configurations are there from the start.
        live.until(
            "the mark of configuration 2",
            "document.querySelectorAll('#marks [data-mark=configuration]').length === 1",
        )
        live.update(down=("101.1",))
        live.until(
            "the server that is gone",
            "document.querySelector('[data-server=\"101.1\"]').dataset.up === 'false'",
            2,
        )
        live.until(
            "the mark",
            "document.querySelectorAll('#marks [data-mark=election][data-group=\"101\"]').length === 1",
            2,
        )
        state = documents.state(down=("101.1",), at=live.controller.state["at"])
        state["groups"][0]["replicas"][1] |= {"role": "leader", "term": 4, "leader": "101.2"}
        live.controller.state = state
        live.until(
            "the new leader",
            "[...document.querySelectorAll('#marks li')].some((it) => it.textContent.includes('101.2 leads, term 4'))",
        )


def check_a_change_is_planned_confirmed_and_made():
    with Live() as live:
        live.controller.plan = {
            "config": 3,
            "settled": False,
            "moves": [{"shard": 7, "from": 101, "to": 102}, {"shard": 8, "from": 102, "to": 101}],
        }
        live.browser.run("document.querySelector('#act-body [data-choice=leave]').click()")
        live.browser.run("document.querySelector('#act-body form button').click()")
        live.until("the plan", "document.querySelector('[data-figure=plan]')?.dataset.moves === '2'")
        assert live.until("the plan in the map", "document.querySelectorAll('#map [data-plan]').length") == 2
        is_off = "document.getElementById('act-do').disabled"
        assert live.browser.run(f"return {is_off}"), "nothing is confirmed yet"
        live.type(act_word="102", act_token="wrong")
        time.sleep(0.5)
        assert live.browser.run(f"return {is_off}"), "the wrong id confirms it"
        live.type(act_word="101")
        live.until("it may be done", f"!{is_off}")
        live.browser.run("document.getElementById('act-do').click()")
        live.until(
            "a wrong token is refused",
            "document.getElementById('act-said').textContent.includes('token is wrong')",
        )
        assert not live.controller.acts
        live.type(act_token=server.TOKEN)
        live.until("it may be done again", f"!{is_off}")
        live.browser.run("document.getElementById('act-do').click()")
        live.until("it is done", "document.getElementById('act-said').dataset.said === 'done'")
        assert live.controller.acts == [
            {"verb": "leave", "groups": [101], "force": False}
        ], live.controller.acts
        stored = live.browser.run(
            "return localStorage.length + sessionStorage.length + document.cookie.length"
        )
        assert stored == 0, "the page stored something"


def check_a_plan_of_an_older_configuration_is_not_made():
    with Live() as live:
        live.controller.plan = {"config": 3, "settled": False, "moves": []}
        live.browser.run("document.querySelector('#act-body [data-choice=balance]').click()")
        live.browser.run("document.querySelector('#act-body form button').click()")
        live.until("the plan", "document.getElementById('act-do')")
        live.type(act_word="balance", act_token="x")
        live.until("it may be done", "!document.getElementById('act-do').disabled")
        live.controller.state = live.controller.state | {"config": 3}
        live.until(
            "it may not any more",
            "document.getElementById('act-do').disabled && !document.getElementById('act-stale').hidden",
        )


def check_old_figures_look_old():
    with Live() as live:
        assert live.count("[data-age]") == 0
        live.controller.mode = "silent"
        live.until("the page says so", "document.documentElement.dataset.link === 'lost'")
        live.until("the figures have their age", "document.querySelectorAll('.facts [data-age]').length >= 6")
        assert live.count("#map .square:not([data-old])") == 0
        assert live.count("#link a") == 2, "the way to the other controllers"
        live.controller.mode = "stream"
        live.until("it is live again", "document.documentElement.dataset.link === 'live'", 20)
        live.until("nothing is old", "document.querySelectorAll('[data-age]').length === 0")


def check_a_stream_that_ends_is_opened_again_and_the_state_asked_for_if_there_is_none():
    with Live() as live:
        live.controller.cut = 0.5
        time.sleep(2)
        assert (
            live.browser.run("return document.documentElement.dataset.link") == "live"
        ), "an end is no alarm"
        live.controller.mode = "poll"
        live.until("it asks on its own", "document.documentElement.dataset.link === 'polling'")
        live.update(owners=[103] * 24)
        live.until("what it was told", "document.querySelectorAll('#map [data-group=\"103\"]').length === 24")


def check_the_slider_shows_older_configurations():
    with Live() as live:
        live.until("the history", "document.getElementById('config').max === '2'")
        live.browser.run("document.getElementById('config-back').click()")
        live.until(
            "all shards of 101",
            "document.querySelectorAll('#map [data-group=\"101\"][data-state=past]').length === 24",
        )
        assert live.browser.run("return document.getElementById('diff').dataset.config") == "1"
        live.browser.run("document.getElementById('config-now').click()")
        live.until("what is now", "document.querySelectorAll('#map [data-state=serving]').length === 24")


def check_the_keyboard_reaches_each_shard():
    with Live() as live:
        live.until("squares", "document.querySelectorAll('#map .square').length")
        press = "document.getElementById('map').dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true, cancelable: true}))"
        live.browser.run("document.getElementById('map').focus()")
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            live.browser.run(press, key)
        label = live.browser.run(
            "return document.getElementById(document.getElementById('map').getAttribute('aria-activedescendant')).getAttribute('aria-label')"
        )
        assert label.startswith("Shard 1, group 101, served, 101 keys"), label
        assert live.browser.run("return document.getElementById('shard').dataset.shard") == "1"
        unnamed = live.browser.run(
            "return [...document.querySelectorAll('button, input, select')].filter((it) => !(it.textContent.trim() || "
            "it.getAttribute('aria-label') || it.labels?.length)).map((it) => it.outerHTML)"
        )
        assert not unnamed, unnamed


def check_nothing_is_cut_off_at_any_width():
    with Live(moved={1: 102}, down=("102.3",), groups=12, shards=1024) as live:
        shots(live.browser, "crowded")
    with Live(moved={1: 102}, down=("102.3",)) as live:
        time.sleep(6)
        shots(live.browser, "live")


def shots(browser, name):
    for width in (1280, 390):
        for dark in (False, True):
            browser.look(width, 900, dark)
            time.sleep(0.7)
            wide = browser.run("return document.documentElement.scrollWidth")
            assert wide <= width, f"{name}: {wide} pixels in a window of {width}"
            cut = browser.run(
                "return [...document.querySelectorAll('main *, header *')].filter((it) => it.childElementCount === 0 && "
                "!it.closest('.hidden, .map, .heat, input') && getComputedStyle(it).display !== 'inline' && it.clientWidth > 0 && "
                "it.scrollWidth > it.clientWidth + 1).map((it) => it.outerHTML.slice(0, 200))"
            )
            assert not cut, f"{name} at {width}: {cut}"
            if SHOTS:
                browser.shot(SHOTS / f"{name}-{width}-{'dark' if dark else 'light'}.png")


def hour():
    """An hour's events at twenty times their pace: the page grows by less than 10 MB, and by no elements."""
    with Live(shards=64, moved={1: 102}) as live:
        live.controller.pause = 0.05

        def size():
            for _ in range(3):
                live.browser.cdp("HeapProfiler.collectGarbage")
            heap = live.browser.cdp("Runtime.getHeapUsage")
            nodes = live.browser.cdp("Memory.getDOMCounters")["nodes"]
            buffers = heap.get("backingStorageSize", 0)
            return (heap["usedSize"] + buffers) / 1e6, live.browser.renderer_bytes() / 1e6, nodes

        begun = live.controller.state["at"]
        seconds = lambda: (live.controller.state["at"] - begun) / 1000
        wait("some minutes of samples", lambda: seconds() >= 300, 100)
        before = size()
        wait("an hour of samples", lambda: seconds() >= 3900, 600)
        after = size()
        for name, one, other in zip(("heap, MB", "process, MB", "nodes"), before, after):
            print(f"        {name}: {one:.1f} before, {other:.1f} after")
        assert after[0] - before[0] < 10 and after[1] - before[1] < 10, "it grew"
        assert after[2] - before[2] < 1000, "elements were left over"


def controller(address):
    """The page of a real controller, against the document that it gives."""
    address = address.rstrip("/") + "/"
    with Browser() as browser:
        browser.look(1280, 900, False)
        browser.go(address)
        wait(
            "the page is live",
            lambda: browser.run("return document.documentElement.dataset.link") == "live",
            20,
        )
        with urllib.request.urlopen(address + "v1/state", timeout=10) as answer:
            document = json.load(answer)
        wait(
            "this configuration",
            lambda: browser.run("return document.documentElement.dataset.config") == str(document["config"]),
        )
        figures.compare_places(browser.elements(), document)
        # A wrong token: nothing may change.
        status = browser.run(
            "return fetch('v1/act', {method: 'POST', body: JSON.stringify({verb: 'balance', by: 'count'}), "
            "headers: {'Content-Type': 'application/json', Authorization: 'Bearer wrong'}}).then((it) => it.status)"
        )
        assert status in (401, 403), status
        shots(browser, "controller")
        browser.leave(address)
