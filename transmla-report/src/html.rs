//! Pieces of a page.

use std::fmt::Write;

use crate::conversion::Fact;

const STYLE: &str = include_str!("style.css");

/// A page that grows from top to bottom.
pub(crate) struct Page(String);

impl Page {
    /// Its head: what it is about, and below it what was done.
    pub fn new(title: &str, kind: &str, heading: &str, subtitle: &str) -> Self {
        let [title, kind, heading, subtitle] = [title, kind, heading, subtitle].map(escape);
        Self(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
             <body>\n<main>\n<header>\n<p class=\"kind\">{kind}</p>\n<h1>{heading}</h1>\n<p class=\"subtitle\">{subtitle}</p>\n\
             </header>\n"
        ))
    }

    /// Adds markup.
    pub fn push(&mut self, html: &str) -> &mut Self {
        self.0 += html;
        self
    }

    /// The figures that say most: each a value and what it is.
    pub fn tiles(&mut self, tiles: &[Tile]) {
        if tiles.is_empty() {
            return;
        }
        self.0 += "<dl class=\"tiles\">\n";
        for Tile { name, value, note } in tiles {
            // A number keeps its unit.
            let [name, value, note] = [name, value, note].map(|text| escape(text).replace(" %", "\u{a0}%"));
            let _ = writeln!(
                self.0,
                "<div><dt>{name}</dt><dd>{value}</dd><dd class=\"note\">{note}</dd></div>"
            );
        }
        self.0 += "</dl>\n";
    }

    /// Names and values in two columns.
    pub fn facts(&mut self, facts: &[Fact]) {
        if facts.is_empty() {
            return;
        }
        self.0 += "<dl class=\"facts\">\n";
        for Fact { name, value } in facts {
            let _ = writeln!(self.0, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
        }
        self.0 += "</dl>\n";
    }

    /// A heading with what belongs to it.
    pub fn section(&mut self, id: &str, heading: &str, content: &str) {
        let heading = escape(heading);
        let _ = writeln!(self.0, "<section id=\"{id}\">\n<h2>{heading}</h2>\n{content}</section>");
    }

    /// The whole file.
    pub fn finish(mut self, generator: &str) -> String {
        if !generator.is_empty() {
            let _ = writeln!(self.0, "<footer>Made by {}.</footer>", escape(generator));
        }
        self.0 += "</main>\n</body>\n</html>\n";
        self.0
    }
}

/// A figure that says much.
pub(crate) struct Tile {
    pub name: String,
    pub value: String,
    pub note: String,
}

/// A picture with what it shows.
pub(crate) fn figure(id: &str, heading: &str, picture: &str, caption: &str) -> String {
    let [heading, caption] = [heading, caption].map(escape);
    format!("<figure id=\"{id}\">\n<h3>{heading}</h3>\n{picture}<figcaption>{caption}</figcaption>\n</figure>\n")
}

/// A table; the first column names the row.
pub(crate) fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>");
    for column in columns {
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(column));
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in rows {
        html += "<tr>";
        for (index, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            let _ = match index {
                0 => write!(html, "<th scope=\"row\">{cell}</th>"),
                _ => write!(html, "<td>{cell}</td>"),
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table></div>\n"
}

/// Text as HTML and XML have it; characters that XML cannot have become spaces.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\n' => escaped.push('\n'),
            c if is_printable(c) => escaped.push(c),
            _ => escaped.push(' '),
        }
    }
    escaped
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Text on one line, without what XML cannot have; plotters escapes the rest.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_printable(c) { c } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_is_text() {
        assert_eq!(
            escape("<a href=\"x\" title='y'>&\u{0}\u{ffff}\n"),
            "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;  \n"
        );
    }
}
