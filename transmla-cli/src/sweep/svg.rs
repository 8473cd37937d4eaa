//! Elements of a picture, as SVG.

use std::fmt::{Arguments, Write};

/// A document that elements are added to.
#[derive(Debug)]
pub struct Document(String);

impl Document {
    /// An empty picture on white, of a size in pixels, whose texts have one colour unless they say otherwise.
    pub fn new((width, height): (f64, f64), ink: &str) -> Self {
        let mut document = Self(String::new());
        document.element(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="13" fill="{ink}">"#
        ));
        document.element(format_args!(
            r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##
        ));
        document
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        self.element(format_args!("</svg>"));
        self.0
    }

    /// Adds an element as it is.
    pub fn element(&mut self, text: Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{text}");
    }

    /// Adds a text; `style` are further attributes.
    pub fn text(&mut self, (x, y): (f64, f64), style: &str, text: &str) {
        let text = escape(text);
        self.element(format_args!(r#"<text x="{x:.1}" y="{y:.1}" {style}>{text}</text>"#));
    }

    /// Adds the marker of a point: one of eight shapes, the second four of them hollow. The title is shown to whoever
    /// points at it.
    pub fn marker(&mut self, kind: usize, (x, y): (f64, f64), colour: &str, title: &str) {
        let title = escape(title);
        let shape = match kind % 4 {
            0 => format!(r#"circle cx="{x:.1}" cy="{y:.1}" r="5""#),
            1 => format!(r#"path d="M{:.1} {:.1}h9v9h-9z""#, x - 4.5, y - 4.5),
            2 => format!(r#"path d="M{x:.1} {:.1}l5.5 9.6h-11z""#, y - 6.0),
            _ => format!(r#"path d="M{x:.1} {:.1}l6 6l-6 6l-6 -6z""#, y - 6.0),
        };
        // Every second four are hollow.
        let fill = if kind % 8 < 4 { colour } else { "#ffffff" };
        let name = shape.split(' ').next().unwrap_or("path");
        self.element(format_args!(
            r#"<{shape} fill="{fill}" stroke="{colour}" stroke-width="1.5"><title>{title}</title></{name}>"#
        ));
    }
}

/// The start of a text that is too long, and a sign that it goes on.
pub fn shorten(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// Text as XML has it; what XML cannot have is left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
