//! One HTML file that shows a run: it needs no network, no other file and no framework.
//!
//! The template (`page/page.html`), its style and its scripts are compiled in; a run adds one block
//! of JSON. Keys and values may contain anything, so the JSON is written without any character that
//! has a meaning in HTML, and the scripts put text into the page only as text.
//!
//! Left out on purpose: values in full, and most messages of a long run; `recording.json` has them.

use std::collections::BTreeMap;

use base::html::{self, escape};
use serde::Serialize;

use super::Verdict;
use super::story::{Story, clients, messages, server_names};
use super::words::micros;
use sim::record::{Header, Recording};

const TEMPLATE: &str = include_str!("page/page.html");
/// The page loads nothing.
const EXTRA: &str = include_str!("page/head.html");
const STYLE: &str = include_str!("page/page.css");
/// In the order in which they build on each other.
const SCRIPTS: [&str; 6] = [
    include_str!("page/data.js"),
    include_str!("page/rows.js"),
    include_str!("page/paint.js"),
    include_str!("page/lanes.js"),
    include_str!("page/panel.js"),
    include_str!("page/main.js"),
];

/// The input of the scripts.
#[derive(Serialize)]
struct Data<'a> {
    header: &'a Header,
    failed_at: u64,
    #[serde(flatten)]
    story: Story,
    lanes: Vec<clients::Lane>,
    operations: Vec<clients::Row>,
    keys: Vec<String>,
    /// Clients' names on the network.
    names: BTreeMap<String, String>,
    verdicts: Vec<clients::Judged>,
    messages: messages::Messages,
}

/// The page of `recording`.
///
/// # Errors
/// None is known: everything on the page can be written as JSON.
pub fn render(recording: &Recording, verdicts: &[Verdict]) -> serde_json::Result<String> {
    let story = Story::of(recording, verdicts);
    let names = clients::names(&recording.history, &recording.events, &server_names(&recording.events));
    let (operations, keys) = clients::rows(&recording.history);
    let data = Data {
        header: &recording.header,
        failed_at: micros(recording.header.failed_at_ns),
        lanes: clients::lanes(&recording.history, &names),
        operations,
        keys,
        names,
        verdicts: clients::judged(&recording.history, verdicts, story.end),
        messages: messages::of(recording),
        story,
    };
    let data = harmless(&serde_json::to_string(&data)?);
    let header = &recording.header;
    let parts = [
        ("{{head}}", html::head(&format!("{}: {}", header.test, header.title), EXTRA, STYLE)),
        ("{{heading}}", escape(&header.title)),
        ("{{failure}}", escape(&header.failure)),
        ("{{data}}", data),
        ("{{scripts}}", SCRIPTS.concat()),
    ];
    Ok(fill(TEMPLATE, &parts))
}

/// Puts each part at its mark. The marks come in this order, and inserted text is not searched
/// again.
fn fill(template: &str, parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    for (mark, text) in parts {
        if let Some((before, after)) = rest.split_once(mark) {
            page.push_str(before);
            page.push_str(text);
            rest = after;
        }
    }
    page + rest
}

/// JSON that is safe inside a script element: these characters occur only in its strings, where
/// they can be escaped.
fn harmless(json: &str) -> String {
    let mut harmless = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                harmless.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            other => harmless.push(other),
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::{SCRIPTS, STYLE, TEMPLATE, escape, fill, harmless};

    #[test]
    fn html_and_json_cannot_be_left() {
        assert_eq!(escape("<a href='x'>\"&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;&lt;/a&gt;");
        let hostile = serde_json::to_string("</script><!--<script>\u{2028}&amp;").unwrap();
        let embedded = harmless(&hostile);
        assert!(!embedded.contains(['<', '>', '&', '\u{2028}']), "{embedded}");
        assert_eq!(serde_json::from_str::<String>(&embedded).unwrap(), "</script><!--<script>\u{2028}&amp;");
    }

    #[test]
    fn what_is_put_in_is_not_searched_for_marks() {
        let parts = [("{{a}}", "{{b}}".to_owned()), ("{{b}}", "2".to_owned())];
        assert_eq!(fill("<{{a}}|{{b}}>", &parts), "<{{b}}|2>");
    }

    #[test]
    fn the_page_asks_nothing_of_anybody_and_writes_text_as_text() {
        let whole = format!("{TEMPLATE}{STYLE}{}", SCRIPTS.concat());
        let wanted =
            ["http://", "https://", "//cdn", "@import", "url(", "fetch(", "XMLHttpRequest", " src=", "<link"];
        for word in
            wanted.iter().chain(&["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("])
        {
            let rest = whole.replace("http://www.w3.org/2000/svg", "");
            assert!(!rest.contains(word), "{word}");
        }
        assert!(!SCRIPTS.concat().contains("</script"));
    }
}
