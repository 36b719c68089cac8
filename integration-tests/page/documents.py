"""Documents as a controller gives them, made up here: of a cluster of any size, with a move, a server that is down, and
requests that were slow. Nothing in them is random, so a failed check is the same again."""

FIRST_AT = 1_790_000_000_000


def server(name, group, leads, up=True, **more):
    """A server as `clerk status -o json` shows it. One that does not answer has only a name and an address."""
    fields = {
        "role": "leader" if leads else "follower",
        "term": 3,
        "leader": f"{group}.1",
        "commit": 123_456,
        "applied": 123_450,
        "followers": {},
        "config": 2,
        "alarms": 0,
        "last_alarm": None,
        "table_bad": False,
        "owes": None,
        "refused_by": {},
        "disk": {"directory": "/d", "free_bytes": 35_000_000_000, "reserve_bytes": 268_435_456, "low": False},
        "http": "127.0.0.1:9",
    } | more
    if not up:
        fields = dict.fromkeys(fields)
    return {"name": name, "address": "127.0.0.1:1", "up": up} | fields


def shard_of(number, moved):
    """A shard as its group shows it: number 1 is frozen and on its way if there is such a move."""
    keys = 100 + number % 400
    it = {
        "shard": number,
        "state": "serving",
        "move": None,
        "peer": None,
        "rows": keys,
        "bytes": keys * 270,
        "progress": None,
        "load": {"reads": number % 50, "writes": number % 7, "bytes": 900},
    }
    if number in moved:
        it |= {"state": "handing", "move": 2, "peer": moved[number], "progress": 40}
    return it


def replicas(gid, down):
    lags = {
        f"{gid}.{number}": {
            "lacks": number * 1000,
            "silent_seconds": 12 if f"{gid}.{number}" in down else 0,
            "standing": "level",
        }
        for number in (2, 3)
    }
    return [
        server(
            f"{gid}.{number}",
            gid,
            number == 1,
            f"{gid}.{number}" not in down,
            followers=lags if number == 1 else {},
        )
        for number in (1, 2, 3)
    ]


def status(shards=24, groups=3, owners=None, moved=None, down=()):
    """What `clerk status -o json` prints."""
    gids = [101 + index for index in range(groups)]
    owners = owners if owners is not None else [gids[number * groups // shards] for number in range(shards)]
    moved = moved or {}
    held = {
        gid: [shard_of(number, moved) for number, owner in enumerate(owners) if owner == gid] for gid in gids
    }
    return {
        "cluster": "test",
        "config": 2,
        "digest": "00",
        "key": "00",
        "settled": not moved,
        "params": {
            "shard_count": shards,
            "key_bytes_max": 4096,
            "value_bytes_max": 1_048_576,
            "sessions_max": 4096,
        },
        "placement": {"version": 1, "weights": {"102": 200}, "pins": {"5": 101}},
        "controllers": [
            server(f"ctrl.{number}", "ctrl", number == 1, f"ctrl.{number}" not in down)
            for number in (1, 2, 3)
        ],
        "groups": [
            {
                "gid": gid,
                "joined": True,
                "history": "ok",
                "history_text": "",
                "config": 2,
                "lost_data": False,
                "weight": 200 if gid == 102 else 100,
                "replicas": replicas(gid, down),
                "shards": held[gid],
            }
            for gid in gids
        ],
    }


def history(shards, owners):
    first = [101] * shards
    configs = [
        {
            "num": 0,
            "digest": "",
            "groups": [],
            "moved": 0,
            "lost": [],
            "owners": [0] * shards,
            "seen_at": None,
        },
        {
            "num": 1,
            "digest": "",
            "groups": [101],
            "moved": shards,
            "lost": [],
            "owners": first,
            "seen_at": None,
        },
        {
            "num": 2,
            "digest": "",
            "groups": sorted(set(owners)),
            "owners": owners,
            "lost": [],
            "seen_at": FIRST_AT - 60_000,
            "moved": sum(a != b for a, b in zip(first, owners)),
        },
    ]
    return {"history": configs, "history_from": 0}


def rates(document):
    groups, shards = {}, {}
    for index, group in enumerate(document["groups"]):
        asked = sum(it["load"]["reads"] + it["load"]["writes"] for it in group["shards"])
        groups[str(group["gid"])] = {
            "requests": float(asked),
            "outcomes": {"ok": float(asked) - index, "busy": float(index)},
            "p50": 0.0005 * (index + 1),
            "p99": 0.004 * (index + 1),
            "p999": 0.02 * (index + 1),
            "verbs": {},
        }
        shards |= {str(it["shard"]): {"group": group["gid"], **it["load"]} for it in group["shards"]}
    return {"seconds": 1.0, "servers": {}, "groups": groups, "shards": shards}


def state(shards=24, groups=3, owners=None, moved=None, down=(), at=FIRST_AT):
    """The document of `/v1/state`, without the history."""
    document = status(shards, groups, owners, moved, down)
    names = [it["name"] for it in document["controllers"]] + [
        it["name"] for group in document["groups"] for it in group["replicas"]
    ]
    problems = [f"{name} does not answer for 12 s." for name in down]
    moves = [
        {
            "shard": number,
            "move": 2,
            "from": group["gid"],
            "to": to,
            "phase": "sealed",
            "served": False,
            "rows": 40,
            "rows_total": 100 + number % 400,
            "bytes_total": 27_000,
            "waits_for": None,
            "rows_per_second": 20.0,
            "seconds_left": 3.0,
            "seconds": 2.0,
        }
        for number, to in (moved or {}).items()
        for group in document["groups"]
        if any(it["shard"] == number for it in group["shards"])
    ]
    kept = {name: server(name, name.split(".")[0], False) for name in down}
    return document | {
        "at": at,
        "asked_ms": 9,
        "seen_by": "ctrl.1",
        "writable": True,
        "health": {
            "ok": not problems,
            "text": problems[0] if problems else "All servers answer.",
            "problems": problems,
        },
        "pending": [],
        "moves": moves,
        "ages": {name: 12.4 if name in down else 0.0 for name in names},
        "last": {"servers": kept, "groups": {}, "config": None},
        "rates": rates(document),
    }


def slow():
    return {
        "slow": [
            {
                "server": "101.1",
                "at": FIRST_AT - 5000 * index,
                "verb": "put",
                "shard": index,
                "outcome": "ok",
                "seconds": 0.5 + index,
                "stages": {"queue": 0.01, "replicate": 0.4, "apply": 0.02},
            }
            for index in range(3)
        ]
    }


def whole(**given):
    """A document with all of it, as `clerk page` is given it."""
    document = state(**given)
    owners = [0] * document["params"]["shard_count"]
    for group in document["groups"]:
        for it in group["shards"]:
            owners[it["shard"]] = group["gid"]
    return document | history(len(owners), owners) | slow()


def past(values):
    """What a controller remembers of group 101 from the seconds before the first state."""
    at = [FIRST_AT - 1000 * seconds for seconds in range(len(values), 0, -1)]
    return {"past": {"at": at, "groups": {"101": {"requests": values, "p99": [0.1] * len(values)}}}}


EVIL = "<img src=http://example.invalid/x onerror=alert(1)>"


def broken():
    """Documents that no server should give, by name. The page must stay a page."""
    odd = whole()
    odd["cluster"] = EVIL
    odd["health"] = {"ok": False, "text": EVIL, "problems": [EVIL, EVIL + "2"]}
    odd["groups"][0]["replicas"][0] |= {"name": EVIL, "last_alarm": EVIL, "role": EVIL}
    odd["slow"][0] |= {"verb": EVIL, "stages": {EVIL: 1.0}}
    odd["moves"] = [{"shard": 3, "from": 101, "to": 102, "waits_for": EVIL}]
    nulls = dict.fromkeys(whole())
    strings = {key: "word" for key in whole()}
    hollow = {
        "groups": [
            {},
            {
                "gid": 7,
                "replicas": [{}],
                "shards": [{}, {"shard": -1}, {"shard": "length"}, {"shard": 0, "state": "toString"}],
            },
        ],
        "controllers": [None],
        "rates": {"shards": {"length": {"reads": 1}}},
        "moves": [None, {}],
        "history": [None, {"num": 3}],
    }
    return {"empty": {}, "nulls": nulls, "strings": strings, "hollow": hollow, "odd": odd}
