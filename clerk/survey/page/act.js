// Changes of the cluster: the plan first, drawn into the map; then the id typed and the token given; then the change.
//
// The token stays in this variable: closing or reloading the page forgets it. The page never repeats a change on its own: an
// answer that did not come may still mean that it was done.
"use strict";
{
  let token = "";
  let verb = "join";
  let plan = null; // {body, answer, config, word, line}
  let busy = false;

  const joined = (view) =>
    view.model.groups.filter((it) => it.joined).map((it) => [it.gid, `group ${it.gid}`]);
  const apart = (view) => view.model.groups.filter((it) => !it.joined).map((it) => it.gid);

  const post = async (path, body, headers = {}) => {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: JSON.stringify(body),
      credentials: "same-origin",
      signal: AbortSignal.timeout(20000),
    });
    const document = page.object(await answer.json().catch(() => null));
    const error = document.error
      ? page.object(document.error)
      : answer.ok
        ? null
        : { code: `http_${answer.status}`, message: `The server answered ${answer.status}.` };
    return { status: answer.status, document, error };
  };

  const values = () => {
    const found = {};
    for (const input of page.id("act-fields").querySelectorAll("[name]"))
      found[input.name] = input.type === "checkbox" ? input.checked : input.value;
    return found;
  };

  const option = ([value, text]) => page.el("option", { value, text, data: { key: value } });

  const field = ([name, label, kind], view) => {
    const id = `act-${name}`;
    if (kind === "check")
      return page.el("label", { class: "check" }, page.el("input", { type: "checkbox", name, id }), label);
    const options = kind === "group" ? joined(view) : kind;
    const input = Array.isArray(options)
      ? page.el("select", { name, id }, ...options.map(option))
      : page.el("input", {
          name,
          id,
          type: "text",
          autocomplete: "off",
          inputmode: kind === "number" ? "numeric" : null,
          required: kind === "number",
        });
    return page.el("label", { for: id }, page.el("span", { text: label }), input);
  };

  const tell = (kind, ...texts) => {
    const box = page.id("act-said");
    page.data(box, { said: kind });
    box.replaceChildren(...texts.filter(Boolean).map((text) => page.el("p", { text })));
  };

  const forget = () => {
    plan = null;
    page.map.plan = new Map();
    page.id("act-plan").replaceChildren();
    tell("", "");
  };

  const showLine = () => {
    const line = page.VERBS[verb].line(values());
    page.text(page.id("act-line"), line);
  };

  const choose = (view, chosen) => {
    verb = chosen;
    forget();
    page.text(page.id("act-about"), page.VERBS[verb].about);
    page.id("act-fields").replaceChildren(...page.VERBS[verb].fields.map((it) => field(it, view)));
    if (verb === "join" && apart(view).length) page.id("act-group").value = apart(view)[0];
    showLine();
    page.redraw();
  };

  const said = (error) => tell("error", error.message ?? "It was refused.", error.next);

  // A plan that could not be asked for changed nothing; of a change this is not known.
  const ask = async () => {
    if (busy) return;
    const given = values();
    const body = page.VERBS[verb].body(given);
    forget();
    busy = true;
    tell("wait", "Asking for the plan.");
    try {
      const { document, error } = await post("v1/plan", body);
      if (error) said(error);
      else {
        plan = {
          body,
          answer: document,
          config: page.view.model.config,
          word: page.VERBS[verb].word(given),
          line: page.VERBS[verb].line(given),
        };
        tell("", "");
        showPlan();
      }
    } catch {
      tell("error", "The controller did not answer. Nothing was changed.");
    } finally {
      busy = false;
    }
    page.redraw();
  };

  const act = async () => {
    if (busy || !plan) return;
    token = page.id("act-token").value.trim();
    busy = true;
    tell("wait", "Making the change.");
    try {
      const { status, document, error } = await post("v1/act", plan.body, {
        Authorization: `Bearer ${token}`,
      });
      if (error && status === 401) {
        token = "";
        page.id("act-token").value = "";
      }
      if (error?.code === "unknown")
        tell(
          "unknown",
          error.message ?? "It is not known whether it was done.",
          error.next ?? "Look at the configuration before you repeat it.",
        );
      else if (error) said(error);
      else {
        const moves = page.array(document.moves).length;
        forget();
        tell(
          "done",
          `Configuration ${page.count(document.config)} is made. ${moves ? `${page.plural(moves, "shard")} will move: watch the map.` : "No shard moves."}`,
        );
      }
    } catch {
      tell(
        "unknown",
        "No answer came. It is not known whether it was done: look at the configuration before you repeat it.",
      );
    } finally {
      busy = false;
    }
    page.redraw();
  };

  const planWords = (answer, moves) => {
    const parts = [moves.length ? `${page.plural(moves.length, "shard")} would move` : "No shard would move"];
    if (moves.length) parts.push(page.bytes(answer.bytes), `about ${page.span(answer.estimated_seconds)}`);
    if (typeof answer.balanced === "boolean")
      parts.push(answer.balanced ? "balanced afterwards" : "not quite balanced afterwards");
    return `${parts.join(", ")}.`;
  };

  const input = (id, type, value = "") =>
    page.el("input", { id, type, value, autocomplete: "off", on: { input: () => page.redraw() } });

  // The id and the token, and the button that is of use when both are there.
  const confirmForm = () => {
    const confirm = page.el("button", { type: "submit", id: "act-do", class: "main", disabled: true });
    confirm.textContent = `Do it: ${plan.line}`;
    const drop = page.el("button", { type: "button", class: "quiet", text: "Drop the plan" });
    drop.addEventListener("click", () => {
      forget();
      page.redraw();
    });
    const words = page.el("span", {}, "Type ", page.el("b", { text: plan.word }), " to confirm");
    const fields = [
      page.el("label", { for: "act-word" }, words, input("act-word", "text")),
      page.el(
        "label",
        { for: "act-token" },
        page.el("span", { text: "Admin token" }),
        input("act-token", "password", token),
      ),
    ];
    const form = page.el("form", { class: "act-form" }, page.el("div", { class: "fields" }, ...fields));
    form.append(page.el("p", { class: "buttons" }, confirm, drop));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!confirm.disabled) act();
    });
    return form;
  };

  // Of `balance`: what each group has before and after.
  const shareList = (groups) =>
    page.el(
      "ul",
      { class: "shares" },
      ...groups.map((it) =>
        page.el(
          "li",
          {},
          page.tag(it.gid),
          `${page.short(it.before)} → ${page.short(it.after)} (share ${page.short(it.share)})`,
        ),
      ),
    );

  const showPlan = () => {
    const { answer } = plan;
    const moves = page.array(answer.moves).map(page.object);
    const unknown = page.array(answer.unknown);
    page.map.plan = new Map(moves.map((it) => [it.shard, it.to]));
    const groups = page.array(answer.groups).map(page.object);
    const sum = page.el("p", { data: { figure: "plan", moves: moves.length, bytes: answer.bytes } });
    sum.textContent = planWords(answer, moves);
    const blind = `The groups of shards ${page.ranges(unknown)} do not answer, so their bytes are not known.`;
    const stale = "The configuration has changed since. Ask for the plan again.";
    page
      .id("act-plan")
      .replaceChildren(
        page.el("h3", { text: "The plan" }),
        sum,
        page.pairList(page.pairs(moves)),
        groups.length ? shareList(groups) : "",
        unknown.length ? page.el("p", { class: "bad", text: blind }) : "",
        page.el("p", { class: "bad", id: "act-stale", hidden: true, text: stale }),
        confirmForm(),
      );
  };

  // Only the command line starts processes.
  const drawDown = (view) => {
    const all = [...view.model.controllers, ...view.model.groups.flatMap((it) => it.replicas)];
    const down = all.filter((it) => !it.up).slice(0, 12);
    page.id("act-down").hidden = down.length === 0;
    page.each(
      page.id("act-down").lastElementChild,
      down,
      (it) => it.name,
      (it) => page.el("li", {}, `${it.name}: `, page.el("code", { text: `clerk start ${it.name}` })),
    );
  };

  const build = (view) => {
    const tabs = page.el("div", { class: "choice", role: "group", "aria-label": "Kind of change" });
    page.choice(
      tabs,
      Object.keys(page.VERBS).map((name) => [name, name]),
      verb,
      (name) => choose(page.view, name),
    );
    const form = page.el(
      "form",
      {
        class: "act-form",
        on: {
          submit: (event) => {
            event.preventDefault();
            ask();
          },
          input: () => {
            if (plan) forget();
            showLine();
          },
        },
      },
      page.el("div", { class: "fields", id: "act-fields" }),
      page.el("p", {}, page.el("button", { type: "submit", class: "main", text: "Show the plan" })),
    );
    page.id("act-body").replaceChildren(
      tabs,
      page.el("p", { class: "hint", id: "act-about" }),
      form,
      page.el("p", { class: "hint" }, "The same on a command line: ", page.el("code", { id: "act-line" })),
      page.el("div", { id: "act-plan" }),
      page.el("div", { id: "act-said", role: "status" }),
      page.el("p", {
        id: "act-only",
        class: "note",
        hidden: true,
        text: "This controller has no admin token: the page can plan, and the command line can change.",
      }),
      page.el(
        "div",
        { id: "act-down", hidden: true },
        page.el("p", {
          class: "hint",
          text: "Only the command line starts processes. For the servers that do not answer:",
        }),
        page.el("ul", {}),
      ),
    );
    choose(view, verb);
  };

  page.parts.push({
    name: "act",
    draw(view) {
      page.id("act").hidden = view.link === "saved";
      if (view.link === "saved" || !view.isKnown) return;
      if (!page.id("act-fields")) build(view);
      page.id("act-only").hidden = view.model.writable;
      drawDown(view);
      const select = page.id("act-fields").querySelector("select#act-group");
      if (select) page.each(select, joined(view), ([gid]) => gid, option);
      const button = page.id("act-do");
      if (!button || !plan) return;
      const isStale = plan.config !== view.model.config;
      page.id("act-stale").hidden = !isStale;
      button.disabled =
        busy ||
        isStale ||
        !view.model.writable ||
        page.id("act-word").value.trim() !== plan.word ||
        !page.id("act-token").value.trim();
    },
  });
}
