"""The page of a real cluster of processes: a group joins through the page, a leader is killed, and each shows."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import figures
import live
from browser import Browser, wait

# Counts the squares of a group after each change of the map.
WATCH = """
window.seen = [];
const count = () => document.querySelectorAll(`#map [data-group="${arguments[0]}"]`).length;
new MutationObserver(() => seen.at(-1) !== count() && seen.push(count()))
  .observe(document.getElementById("map"), {subtree: true, attributeFilter: ["data-group"]});
"""


class Cluster:
    """A local cluster in a folder of its own, which goes at the end."""

    def __init__(self, clerk):
        self.clerk = clerk

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.environment = {**os.environ, "CLERK_DIR": f"{self.folder.name}/cluster"}
        self.environment.pop("CLERK_CONTROLLERS", None)
        self.run("up", "--groups", "2", "--shards", "64")
        return self

    def __exit__(self, *_):
        subprocess.run([self.clerk, "down", "--purge"], env=self.environment, capture_output=True)
        self.folder.cleanup()

    def run(self, *words):
        command = [self.clerk, "-o", "json", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"clerk {' '.join(words)}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def address(self):
        return f"http://{self.run('status')['controllers'][0]['http']}/"

    def token(self):
        return Path(self.environment["CLERK_DIR"], "admin-token").read_text().strip()


def plan(browser, **fields):
    """Fills in the form, and asks for the plan."""
    for name, text in fields.items():
        browser.write(f"act-{name}", text)
    browser.run("document.querySelector('#act-body form button').click()")
    plan_or_refusal = "return document.querySelector('[data-figure=plan]')?.dataset.moves ?? null"
    return int(wait("the plan", lambda: browser.run(plan_or_refusal)))


def confirm(browser, word, token):
    browser.write("act-word", word)
    browser.write("act-token", token)
    wait("it may be done", lambda: not browser.run("return document.getElementById('act-do').disabled"))
    browser.run("document.getElementById('act-do').click()")
    said = "const it = document.getElementById('act-said'); return [it.dataset.said, it.textContent]"
    return wait("an answer", lambda: (it := browser.run(said))[0] not in ("", "wait") and it)


def joins(browser, cluster):
    """Group 103 joins by the page: a wrong token is refused, and the squares change one after the other."""
    servers = [it["address"] for it in cluster.run("add-group", "103")["servers"]]
    browser.run(WATCH, 103)
    moves = plan(browser, group="103", servers=", ".join(servers))
    assert moves == 21, f"{moves} of 64 shards should move"
    said, text = confirm(browser, "103", "wrong")
    assert said == "error", f"a wrong token: {said} {text}"
    assert cluster.run("query")["num"] == 1, "a wrong token changed the configuration"
    said, text = confirm(browser, "103", cluster.token())
    assert said == "done", f"{said} {text}"
    wait("the squares of 103", lambda: browser.run("return seen.at(-1)") == moves, 60)
    seen = browser.run("return seen")
    print(f"        squares of 103, as they came: {seen}")
    assert len(seen) > 1, "they came all at once"


def killed(browser, cluster):
    """A leader is killed: within 2 s it is seen to be gone, and the election that follows is a mark."""
    group = next(it for it in cluster.run("status")["groups"] if it["gid"] == 102)
    leader = next(it["name"] for it in group["replicas"] if it["role"] == "leader")
    marks = "return document.querySelectorAll('#marks [data-mark=election][data-group=\"102\"]').length"
    assert browser.run(marks) == 0
    cluster.run("kill", leader)
    begun = time.monotonic()
    cell = f"return document.querySelector('li[data-server=\"{leader}\"]').dataset.up"
    wait(f"{leader} is gone", lambda: browser.run(cell) == "false", 5)
    print(f"        {leader} was seen to be gone after {time.monotonic() - begun:.1f} s")
    assert time.monotonic() - begun < 2.5
    wait("the mark of the election", lambda: browser.run(marks), 15)


def page_of_a_cluster(clerk, address=None):
    with Cluster(clerk) as cluster, Browser() as browser:
        cluster.run("bench", "--keys", "40000", "--value-bytes", "4000", "--preload", "--seconds", "1")
        address = address or cluster.address()
        browser.look(1280, 900, False)
        browser.go(address)
        wait(
            "the page is live",
            lambda: browser.run("return document.documentElement.dataset.link") == "live",
            20,
        )
        wait(
            "64 squares", lambda: browser.run("return document.querySelectorAll('#map .square').length") == 64
        )
        figures.compare_places(browser.elements(), cluster.run("status"))
        joins(browser, cluster)
        killed(browser, cluster)
        live.shots(browser, "cluster")
        browser.leave(address)
