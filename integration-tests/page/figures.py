"""What a page must show of a document: found here from the document alone, without the page's code, and compared with the data-
attributes of the page."""


def equal(elements, what, wanted, **where):
    """The one element with these attributes has this value."""
    found = elements.find(**where)
    assert len(found) == 1, f"{what}: {len(found)} elements with {where}"
    shown = found[0]["value"]
    same = shown == wanted if isinstance(wanted, str) else shown != "" and abs(float(shown) - wanted) < 1e-6
    assert same, f"{what}: the page has {shown!r}, the document {wanted!r}"


def servers_of(document):
    return document["controllers"] + [it for group in document["groups"] for it in group["replicas"]]


def squares_of(elements):
    return {
        int(it["shard"]): it for it in elements.all if it.attributes.get("role") == "option" and it["shard"]
    }


def compare_places(elements, document):
    """Which group serves each shard, and which servers there are: what stays the same while clients write."""
    squares = squares_of(elements)
    assert len(squares) == document["params"]["shard_count"], f"{len(squares)} squares"
    for group in document["groups"]:
        for shard in group["shards"]:
            if shard["state"] == "serving":
                square = squares[shard["shard"]]
                assert square["group"] == str(
                    group["gid"]
                ), f"shard {shard['shard']}: {square['group']} instead of {group['gid']}"
    shown = {it["server"] for it in elements.all if it.name == "li" and it["server"] and it["role"]}
    wanted = {it["name"] for it in servers_of(document)}
    assert shown == wanted, f"servers: {shown ^ wanted}"
    equal(elements, "configuration", document["config"], figure="config")


def compare(elements, document):
    """All that the page shows of this document."""
    compare_places(elements, document)
    compare_shards(elements, document)
    compare_servers(elements, document)
    compare_groups(elements, document)
    rest(elements, document)


def compare_shards(elements, document):
    squares = squares_of(elements)
    for group in document["groups"]:
        for shard in group["shards"]:
            if shard["state"] == "awaiting":
                continue
            square = squares[shard["shard"]]
            wanted = {
                "group": group["gid"],
                "state": shard["state"],
                "keys": shard["rows"],
                "bytes": shard["bytes"],
            }
            if shard.get("load"):
                wanted |= {"reads": shard["load"]["reads"], "writes": shard["load"]["writes"]}
            for name, value in wanted.items():
                assert square[name] == str(
                    value
                ), f"shard {shard['shard']}: {name} {square[name]} instead of {value}"


def compare_servers(elements, document):
    last = document.get("last", {}).get("servers", {})
    for it in servers_of(document):
        [cell] = [element for element in elements.find(server=it["name"], up=None) if element.name == "li"]
        assert cell["up"] == str(it["up"]).lower(), it["name"]
        if not it["up"]:
            assert cell["role"] == "down", it["name"]
            it = last.get(it["name"])
        if it:
            for figure, value in {
                "term": it["term"],
                "commit": it["commit"],
                "applied": it["applied"],
                "disk": it["disk"]["free_bytes"],
            }.items():
                equal(elements, f"{it['name']} {figure}", value, figure=figure, server=it["name"])
    for group in document["groups"]:
        for leader in (it for it in group["replicas"] if it["role"] == "leader"):
            for name, seen in leader["followers"].items():
                equal(elements, f"what {name} lacks", seen["lacks"], figure="lacks", server=name)
    up = sum(it["up"] for it in servers_of(document))
    equal(elements, "servers that answer", up, figure="servers")


def compare_groups(elements, document):
    rates = document.get("rates", {}).get("groups", {})
    for group in document["groups"]:
        gid, held = str(group["gid"]), [it for it in group["shards"] if it["state"] != "awaiting"]
        equal(elements, f"shards of {gid}", len(held), figure="shards", group=gid)
        equal(elements, f"bytes of {gid}", sum(it["bytes"] for it in held), figure="bytes", group=gid)
        for figure in ("requests", "p50", "p99", "p999"):
            if rates.get(gid, {}).get(figure) is not None:
                equal(elements, f"{figure} of {gid}", rates[gid][figure], figure=figure, group=gid)
        if "outcomes" in rates.get(gid, {}):
            failed = sum(rate for outcome, rate in rates[gid]["outcomes"].items() if outcome != "ok")
            equal(elements, f"requests of {gid} that failed", failed, figure="failed", group=gid)
    keys = sum(
        it["rows"] for group in document["groups"] for it in group["shards"] if it["state"] != "awaiting"
    )
    [shown] = [it for it in elements.find(figure="keys") if it.name == "strong"]
    assert float(shown["value"]) == keys, f"keys: {shown['value']} instead of {keys}"


def rest(elements, document):
    for move in document.get("moves", []):
        [item] = [it for it in elements.find(shard=str(move["shard"]), phase=None) if it.name == "li"]
        shown = {name: item[name] for name in ("from", "to", "rows", "total")}
        wanted = {
            "from": str(move["from"]),
            "to": str(move["to"]),
            "rows": str(move["rows"]),
            "total": str(move["rows_total"]),
        }
        assert shown == wanted, f"move of shard {move['shard']}: {shown} instead of {wanted}"
    if "slow" in document:
        assert elements.by_id("slow")["count"] == str(len(document["slow"]))
        first = [it for it in elements.all if it["seconds"] and it["verb"]][0]
        assert float(first["seconds"]) == document["slow"][0]["seconds"]
    if document.get("history"):
        diff = elements.by_id("diff")
        assert (diff["config"], diff["moved"]) == (
            str(document["history"][-1]["num"]),
            str(document["history"][-1]["moved"]),
        )
    if "health" in document:
        assert elements.by_id("health-text").text == document["health"]["text"]
        assert elements.by_id("health")["health"] == ("ok" if document["health"]["ok"] else "bad")
