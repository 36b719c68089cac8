//! The page that each controller shows: files inside the program, and a copy that is one file with its
//! document inside, which needs no server.

use serde_json::Value;

/// A file of the page.
pub struct File {
    /// Its name, and with a `/` in front its path.
    pub name: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// What is in it.
    pub text: &'static str,
}

/// What the page may do: it loads nothing from elsewhere, and nobody may frame it.
pub const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const WORDS: &str = "text/plain; charset=utf-8";

/// Files of the folder `page/` by name, each with its media type.
macro_rules! files {
    ($($kind:ident $name:literal),* $(,)?) => {
        &[$(File { name: $name, kind: $kind, text: include_str!(concat!("../page/", $name)) }),*]
    };
}

/// All files of the page. The first is the page itself, and is served as `/`.
pub const FILES: &[File] = files![
    HTML "page.html",
    STYLE "page.css",
    STYLE "uplot.css",
    SCRIPT "uplot.js",
    WORDS "uplot-LICENSE",
    SCRIPT "util.js",
    SCRIPT "model.js",
    SCRIPT "past.js",
    SCRIPT "shards.js",
    SCRIPT "configs.js",
    SCRIPT "replicas.js",
    SCRIPT "moves.js",
    SCRIPT "charts.js",
    SCRIPT "heat.js",
    SCRIPT "slow.js",
    SCRIPT "verbs.js",
    SCRIPT "act.js",
    SCRIPT "feed.js",
    SCRIPT "page.js",
];

/// What in the page stands for a document.
const NO_DOCUMENT: &str = r#"<script type="application/json" id="document"></script>"#;

/// How the page names a file.
fn link(file: &File) -> Option<String> {
    let File { name, kind, .. } = file;
    match *kind {
        SCRIPT => Some(format!(r#"<script src="{name}" defer></script>"#)),
        STYLE => Some(format!(r#"<link rel="stylesheet" href="{name}">"#)),
        _ => None,
    }
}

/// The page with `document` inside: one file that works where there is no server.
pub fn saved(document: &Value) -> String {
    // Nothing in a document may end the element that holds it.
    let document = document.to_string().replace('<', "\\u003c");
    let filled = format!(r#"<script type="application/json" id="document">{document}</script>"#);
    let mut page = FILES[0].text.replacen(NO_DOCUMENT, &filled, 1);
    for file in FILES {
        let Some(link) = link(file) else { continue };
        let name = if file.kind == SCRIPT { "script" } else { "style" };
        page = page.replacen(&link, &format!("<{name}>\n{}\n</{name}>", file.text), 1);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::json;

    use super::{FILES, NO_DOCUMENT, link, saved};

    #[test]
    fn the_page_names_each_of_its_files_once_and_has_room_for_a_document() {
        let page = FILES[0].text;
        for link in FILES.iter().filter_map(link) {
            assert_eq!(page.matches(&link).count(), 1, "{link}");
        }
        assert_eq!(page.matches(NO_DOCUMENT).count(), 1);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let there: BTreeSet<String> = names.map(|name| name.into_string().unwrap()).collect();
        assert_eq!(there, FILES.iter().map(|file| file.name.to_owned()).collect());
    }

    #[test]
    fn a_saved_page_has_everything_inside_and_no_document_can_end_its_element() {
        let page = saved(&json!({"cluster": "</script><script>alert(1)</script>"}));
        assert!(page.contains(r#"{"cluster":"\u003c/script>\u003cscript>alert(1)\u003c/script>"}"#));
        for part in [" src=\"", "stylesheet", "href=\"http"] {
            assert!(!page.contains(part), "{part}");
        }
        for file in FILES {
            assert!(!file.text.contains("</script") || file.kind == super::HTML, "{}", file.name);
        }
    }
}
