//! The beginning of all our HTML pages: text as HTML, and the head of a page that needs no other
//! file.
//!
//! Left out on purpose: everything that a page shows.

/// Text as HTML, for content and for quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The beginning of a page, up to and with `<body>`. `extra` is HTML, more lines of the head.
pub fn head(title: &str, extra: &str, style: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n{extra}<title>{title}</title>\n\
         <style>\n{style}</style>\n</head>\n<body>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{escape, head};

    #[test]
    fn text_ends_no_element_and_no_attribute() {
        assert_eq!(escape("<b a=\"1\" c='2'>&"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
        assert!(head("a < b", "", "").contains("<title>a &lt; b</title>"));
    }
}
