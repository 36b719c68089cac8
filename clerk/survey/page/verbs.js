// The kinds of changes: what a person is asked for, the request that is made of it, and the same as a command.
"use strict";
{
  const gidOf = (text) => (/^[0-9]{1,15}$/.test(text.trim()) ? Number(text.trim()) : null);
  const addresses = (text) => text.split(/[\s,]+/).filter(Boolean);

  // `fields`: name, label and kind of each. `word` is typed to confirm the change: the id of what it concerns.
  page.VERBS = {
    join: {
      about: "A group joins, and shards move to it.",
      fields: [
        ["group", "Group", "number"],
        ["servers", "Servers (empty: as known)", "text"],
      ],
      body: ({ group, servers }) => {
        const list = addresses(servers);
        return { verb: "join", groups: [list.length ? { gid: gidOf(group), servers: list } : gidOf(group)] };
      },
      word: ({ group }) => group.trim(),
      line: ({ group, servers }) => {
        const list = addresses(servers);
        return `clerk join ${group.trim()}${list.length ? `=${list.join(",")}` : ""}`;
      },
    },
    leave: {
      about: "All shards of the group move to the others. Then its servers may be stopped.",
      fields: [
        ["group", "Group", "group"],
        ["force", "Even if no group remains", "check"],
      ],
      body: ({ group, force }) => ({ verb: "leave", groups: [gidOf(group)], force }),
      word: ({ group }) => group,
      line: ({ group, force }) => `clerk leave ${group}${force ? " --force" : ""}`,
    },
    move: {
      about: "One shard moves. The next join or leave may move it again.",
      fields: [
        ["shard", "Shard", "number"],
        ["group", "To group", "group"],
      ],
      body: ({ shard, group }) => ({ verb: "move", shard: gidOf(shard), group: gidOf(group) }),
      word: ({ group }) => group,
      line: ({ shard, group }) => `clerk move ${shard.trim()} ${group}`,
    },
    weight: {
      about: "Shards are shared out in proportion to the weights. 100 is usual, 0 moves all away.",
      fields: [
        ["group", "Group", "group"],
        ["weight", "Weight", "number"],
      ],
      body: ({ group, weight }) => ({ verb: "weight", group: gidOf(group), weight: gidOf(weight) }),
      word: ({ group }) => group,
      line: ({ group, weight }) => `clerk weight ${group} ${weight.trim()}`,
    },
    balance: {
      about: "As few moves as bring each group within 10 % of its share.",
      fields: [
        [
          "by",
          "By",
          [
            ["bytes", "bytes"],
            ["load", "reads and writes"],
            ["count", "number of shards"],
          ],
        ],
      ],
      body: ({ by }) => ({ verb: "balance", by }),
      word: () => "balance",
      line: ({ by }) => `clerk balance --by ${by}`,
    },
    pin: {
      about: "The shard moves there and stays, until it is unpinned.",
      fields: [
        ["shard", "Shard", "number"],
        ["group", "To group", "group"],
      ],
      body: ({ shard, group }) => ({ verb: "pin", shard: gidOf(shard), group: gidOf(group) }),
      word: ({ group }) => group,
      line: ({ shard, group }) => `clerk pin ${shard.trim()} ${group}`,
    },
    unpin: {
      about: "The shard may be moved again. Nothing moves now.",
      fields: [["shard", "Shard", "number"]],
      body: ({ shard }) => ({ verb: "unpin", shard: gidOf(shard) }),
      word: ({ shard }) => shard.trim(),
      line: ({ shard }) => `clerk unpin ${shard.trim()}`,
    },
  };
}
