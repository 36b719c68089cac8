// The servers: a row for each group, a cell for each replica. A server that does not answer keeps its last figures, with
// their age.
"use strict";
{
  const ROLES = { leader: "leader", follower: "follower", candidate: "candidate", down: "no answer" };

  const cell = (it) =>
    page.el(
      "li",
      { class: "server", data: { server: it.name } },
      page.el(
        "p",
        { class: "server-head" },
        page.el("strong", { text: it.name }),
        page.el("span", { class: "role" }),
        page.el("span", { class: "since" }),
      ),
      page.el(
        "dl",
        { class: "pairs" },
        ...[
          ["Term", "term"],
          ["Committed", "commit"],
          ["Disk free", "disk"],
          ["Applied", "applied"],
        ].map(([name, figure]) =>
          page.el(
            "div",
            {},
            page.el("dt", { text: name }),
            page.el("dd", { data: { figure, server: it.name } }),
          ),
        ),
      ),
      page.el(
        "div",
        { class: "lag" },
        page.el("span", { class: "bar", "aria-hidden": "true" }, page.el("i")),
        page.el("span", { class: "lag-text", data: { figure: "lacks", server: it.name } }),
      ),
      page.el("ul", { class: "notes" }),
    );

  // Bars grow with the number of digits: 10 entries are seen, and 100,000 still fit.
  page.lagShare = (lacks) => (lacks > 0 ? Math.min(1, Math.log10(1 + lacks) / 5) : 0);

  const lagText = (it) => {
    if (!it.up) return it.lacks === null ? "not known" : `lacks ${page.plural(it.lacks, "entry", "entries")}`;
    if (it.standing === "leads") return "leads";
    if (it.lacks === null) return "no leader to ask";
    const silence = it.silent >= 2 ? `, silent for ${page.span(it.silent)}` : "";
    return (
      (it.lacks === 0 ? "level with the leader" : `lacks ${page.plural(it.lacks, "entry", "entries")}`) +
      silence
    );
  };

  const fill = (element, it, view) => {
    const age = view.age(it.age);
    const role = ROLES[it.role] ?? String(it.role);
    page.data(element, { role: it.role, up: it.up, silent: Number.isFinite(age) ? Math.round(age) : null });
    element.classList.toggle("old", age > page.OLD_SECONDS);
    const [, badge, since] = element.firstElementChild.children;
    page.text(badge, role);
    page.text(
      since,
      age <= page.OLD_SECONDS
        ? ""
        : it.age === null
          ? it.isKnownAge
            ? "never heard"
            : ""
          : `${page.span(age)} ago`,
    );
    const [term, commit, disk, applied] = element.querySelectorAll("dd");
    page.figure(term, it.term, page.count(it.term), age);
    page.figure(commit, it.commit, page.count(it.commit), age);
    page.figure(applied, it.applied, page.count(it.applied), age);
    const free = page.number(it.disk.free_bytes);
    page.figure(disk, free, it.disk.low ? `${page.bytes(free)}, low` : page.bytes(free), age);
    disk.classList.toggle("bad", it.disk.low === true);
    const [bar, text] = element.querySelector(".lag").children;
    bar.firstElementChild.style.width = `${page.lagShare(it.lacks ?? 0) * 100}%`;
    page.data(bar, { level: it.lacks > 10000 ? "bad" : it.lacks > 1000 ? "warn" : null });
    page.figure(text, it.lacks, lagText(it), 0);
    page.data(text, { silence: it.silent });
    page.each(
      element.lastElementChild,
      it.notes,
      (note) => note,
      (note) => page.el("li", { text: note }),
    );
  };

  const words = (row) => {
    if (row.gid === "ctrl") return [`configuration ${row.config ?? page.none}`];
    const parts = [`configuration ${row.config ?? page.none}`, page.plural(row.keys, "key")];
    if (!row.joined) parts.push("not joined");
    return parts;
  };

  const troublesOf = (row) => {
    const found = [];
    if (!row.leader) found.push("no leader");
    if (row.lostData) found.push("lost its data");
    if (row.history && row.history !== "ok") found.push(row.historyText ?? row.history);
    return found;
  };

  const makeRow = (row) =>
    page.el(
      "section",
      { class: "replica-row", "aria-label": page.group(row.gid), data: { row: row.gid } },
      page.el(
        "div",
        { class: "replica-group" },
        page.el("h3", {}, row.gid === "ctrl" ? "Controllers" : page.tag(row.gid)),
        page.el("p", { class: "hint" }),
        page.el("p", { class: "bad" }),
      ),
      page.el("ul", { class: "servers" }),
    );

  page.parts.push({
    name: "replicas",
    draw(view) {
      const { model } = view;
      const ctrl = {
        gid: "ctrl",
        replicas: model.controllers,
        config: model.config,
        joined: true,
        leader: page.leaderOf(model.controllers),
      };
      const rows = model.controllers.length ? [ctrl, ...model.groups] : model.groups;
      page.each(
        page.id("replicas"),
        rows,
        (row) => row.gid,
        makeRow,
        (element, row) => {
          const [, about, wrong] = element.firstElementChild.children;
          page.text(about, words(row).join(" · "));
          page.text(wrong, troublesOf(row).join(", "));
          page.data(element, { leader: row.leader?.name ?? "", config: row.config });
          page.each(
            element.lastElementChild,
            row.replicas,
            (it) => it.name,
            cell,
            (item, it) => fill(item, it, view),
          );
        },
      );
      if (!rows.length)
        page.id("replicas").replaceChildren(page.el("p", { class: "empty", text: "No server is known." }));
    },
  });
}
