//! Reading text in UTF-8, UTF-16, UTF-32 or windows-1252 as UTF-8.

use std::io::{self, BufRead, Chain, Cursor, Read};

/// Number of bytes examined to tell the encoding.
const HEAD: u64 = 1024;

/// The characters 0x80 to 0x9f of windows-1252; the five that it leaves undefined stay control characters.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The encoding of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Windows1252,
    /// UTF-16 or UTF-32: units of two or four bytes, the high byte first or last.
    Units {
        bytes: usize,
        high_first: bool,
    },
}

impl Encoding {
    /// A remark for people, unless it is UTF-8.
    pub fn remark(self) -> Option<&'static str> {
        match self {
            Self::Utf8 => None,
            Self::Windows1252 => Some("read as windows-1252"),
            Self::Units { bytes: 2, .. } => Some("read as UTF-16"),
            Self::Units { .. } => Some("read as UTF-32"),
        }
    }

    /// The encoding by the byte order mark, else by where zero bytes are; with the length of the mark.
    fn of(head: &[u8]) -> (Self, usize) {
        let units = |bytes, high_first| Self::Units { bytes, high_first };
        match head {
            [0xef, 0xbb, 0xbf, ..] => (Self::Utf8, 3),
            [0xff, 0xfe, 0, 0, ..] => (units(4, false), 4),
            [0, 0, 0xfe, 0xff, ..] => (units(4, true), 4),
            [0xff, 0xfe, ..] => (units(2, false), 2),
            [0xfe, 0xff, ..] => (units(2, true), 2),
            _ => {
                let zeros = |parity| head.iter().skip(parity).step_by(2).filter(|byte| **byte == 0).count();
                let (first, second, most) = (zeros(0), zeros(1), head.len() / 4);
                match head.len() >= 8 {
                    true if first == 0 && second > most => (units(2, false), 0),
                    true if second == 0 && first > most => (units(2, true), 0),
                    _ => (Self::Utf8, 0),
                }
            }
        }
    }
}

/// A reader that decodes text in any of the encodings to UTF-8.
///
/// Text without a byte order mark is UTF-8, or windows-1252 if that is allowed and the first bytes that are not ASCII are not
/// valid UTF-8. Invalid bytes are an error of kind `InvalidData` that names the line.
pub(crate) struct Utf8<R> {
    inner: Chain<Cursor<Vec<u8>>, R>,
    encoding: Encoding,
    /// Whether windows-1252 is still possible: only ASCII so far.
    undecided: bool,
    /// The first bytes of a character whose other bytes are not read yet.
    carried: Vec<u8>,
    ready: Vec<u8>,
    given: usize,
    line: usize,
}

impl<R: BufRead> Utf8<R> {
    /// Examines the beginning of the text.
    pub fn new(mut inner: R, windows_1252: bool) -> io::Result<Self> {
        let mut head = Vec::new();
        inner.by_ref().take(HEAD).read_to_end(&mut head)?;
        let (encoding, mark) = Encoding::of(&head);
        let mut head = Cursor::new(head);
        head.set_position(mark as u64);
        Ok(Self {
            inner: head.chain(inner),
            encoding,
            undecided: windows_1252 && encoding == Encoding::Utf8,
            carried: Vec::new(),
            ready: Vec::new(),
            given: 0,
            line: 1,
        })
    }

    /// The encoding as far as it is known so far.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn fail<T>(&self, before: &[u8], problem: &str) -> io::Result<T> {
        let line = self.line + newlines(before);
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line}: {problem}"),
        ))
    }

    /// Decodes more; `ready` stays empty only at the end.
    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        while self.ready.is_empty() {
            let mut bytes = std::mem::take(&mut self.carried);
            let chunk = self.inner.fill_buf()?;
            let (length, last) = (chunk.len(), chunk.is_empty());
            bytes.extend_from_slice(chunk);
            self.inner.consume(length);
            if bytes.is_empty() {
                break;
            }
            match self.encoding {
                Encoding::Utf8 => self.utf_8(bytes, last)?,
                Encoding::Windows1252 => self.windows_1252(&bytes),
                Encoding::Units {
                    bytes: unit,
                    high_first,
                } => self.units(&bytes, unit, high_first, last)?,
            }
        }
        self.line += newlines(&self.ready);
        Ok(())
    }

    fn utf_8(&mut self, mut bytes: Vec<u8>, last: bool) -> io::Result<()> {
        let Err(error) = std::str::from_utf8(&bytes) else {
            self.undecided &= bytes.is_ascii();
            self.ready = bytes;
            return Ok(());
        };
        let valid = error.valid_up_to();
        if error.error_len().is_none() && !last {
            self.carried = bytes.split_off(valid);
            self.undecided &= bytes.is_ascii();
            self.ready = bytes;
            return Ok(());
        }
        if !(self.undecided && bytes[..valid].is_ascii()) {
            return self.fail(&bytes[..valid], "these bytes are no UTF-8; save the text as UTF-8");
        }
        if bytes.contains(&0) {
            return self.fail(&bytes[..valid], "this is no text");
        }
        self.encoding = Encoding::Windows1252;
        self.windows_1252(&bytes);
        Ok(())
    }

    fn windows_1252(&mut self, bytes: &[u8]) {
        let character = |byte: &u8| match byte {
            0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
            byte => char::from(*byte),
        };
        self.ready = bytes.iter().map(character).collect::<String>().into_bytes();
    }

    fn units(&mut self, bytes: &[u8], unit: usize, high_first: bool, last: bool) -> io::Result<()> {
        let whole = bytes.len() / unit * unit;
        let number = |chunk: &[u8]| {
            let push = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
            match high_first {
                true => chunk.iter().fold(0, push),
                false => chunk.iter().rev().fold(0, push),
            }
        };
        let mut numbers: Vec<u32> = bytes[..whole].chunks(unit).map(number).collect();
        self.carried = bytes[whole..].to_vec();
        // The second half of a pair may be still to come.
        if unit == 2 && !last && numbers.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
            numbers.pop();
            self.carried = bytes[whole - 2..].to_vec();
        }
        let text: Option<String> = match unit {
            2 => String::from_utf16(&numbers.iter().map(|unit| *unit as u16).collect::<Vec<_>>()).ok(),
            _ => numbers.into_iter().map(char::from_u32).collect(),
        };
        match text {
            Some(text) if !last || self.carried.is_empty() => self.ready = text.into_bytes(),
            _ => return self.fail(&[], "half a character of UTF-16; save the text as UTF-8"),
        }
        if last && self.ready.is_empty() {
            self.carried.clear();
        }
        Ok(())
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

impl<R: BufRead> BufRead for Utf8<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.given == self.ready.len() {
            self.refill()?;
        }
        Ok(&self.ready[self.given..])
    }

    fn consume(&mut self, amount: usize) {
        self.given = (self.given + amount).min(self.ready.len());
    }
}

impl<R: BufRead> Read for Utf8<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// How reading a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnd {
    /// There are no more lines.
    Nothing,
    /// The line is complete; its terminator is not part of it.
    Whole,
    /// The line is longer than the limit and continues.
    GoesOn,
}

/// Reads a line, or as much of it as the limit allows plus a few bytes, so that no character is split.
pub(crate) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>, limit: usize) -> io::Result<LineEnd> {
    line.clear();
    let mut any = false;
    loop {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            return Ok(if any { LineEnd::Whole } else { LineEnd::Nothing });
        }
        any = true;
        let room = limit.saturating_sub(line.len());
        let end = available.iter().position(|byte| *byte == b'\n');
        // Not inside a character: continuation bytes begin with the bits 10.
        let most = (room..available.len())
            .find(|at| available[*at] & 0xc0 != 0x80)
            .unwrap_or(available.len());
        match end {
            Some(end) if end <= most => {
                line.extend_from_slice(&available[..end]);
                reader.consume(end + 1);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(LineEnd::Whole);
            }
            _ => {
                line.extend_from_slice(&available[..most]);
                let more = most < available.len();
                reader.consume(most);
                if more {
                    return Ok(LineEnd::GoesOn);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], windows_1252: bool) -> io::Result<(String, Encoding)> {
        // Small pieces, so that every character is cut somewhere.
        let mut results = (1..9).map(|size| {
            let mut reader = Utf8::new(io::BufReader::with_capacity(size, bytes), windows_1252)?;
            let mut text = String::new();
            reader.read_to_string(&mut text)?;
            Ok((text, reader.encoding()))
        });
        let first = results.next().unwrap();
        for other in results {
            assert_eq!(format!("{other:?}"), format!("{first:?}"));
        }
        first
    }

    fn utf_16(text: &str, mark: bool, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        mark.into_iter().chain(text.encode_utf16()).flat_map(order).collect()
    }

    #[test]
    fn encodings_are_told_apart() {
        let text = "One “naïve” crab 🦀,\r\nand €5.\n";
        let long = text.repeat(100);
        for text in [text, &long] {
            let text = text.to_owned();
            let marked = ["\u{feff}", text.as_str()].concat();
            let utf_32: Vec<u8> = marked.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
            let utf_32_be: Vec<u8> = marked.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
            for bytes in [
                text.clone().into_bytes(),
                marked.into_bytes(),
                utf_16(&text, true, u16::to_le_bytes),
                utf_16(&text, true, u16::to_be_bytes),
                utf_16(&text, false, u16::to_le_bytes),
                utf_16(&text, false, u16::to_be_bytes),
                utf_32,
                utf_32_be,
            ] {
                for windows_1252 in [true, false] {
                    assert_eq!(decoded(&bytes, windows_1252).unwrap().0, text);
                }
            }
        }
    }

    #[test]
    fn windows_1252() {
        let bytes = b"A \x93na\xefve\x94 caf\xe9 costs \x805.\n".repeat(80);
        let (text, encoding) = decoded(&bytes, true).unwrap();
        assert_eq!(text, "A “naïve” café costs €5.\n".repeat(80));
        assert_eq!(encoding, Encoding::Windows1252);
        assert_eq!(decoded(b"caf\xe9", true).unwrap().0, "café");
        assert!(decoded(&bytes, false).unwrap_err().to_string().starts_with("line 1: "));
    }

    #[test]
    fn what_is_no_text_is_told_with_its_line() {
        let problem = |bytes: &[u8]| decoded(bytes, true).unwrap_err().to_string();
        // UTF-8 first, so that what follows is damage and no other encoding.
        assert!(
            problem(
                "naïve\n"
                    .repeat(3)
                    .as_bytes()
                    .iter()
                    .chain(b"\xff\n")
                    .copied()
                    .collect::<Vec<_>>()
                    .as_slice()
            )
            .starts_with("line 4: ")
        );
        assert!(
            problem(
                "ends in a naï"
                    .as_bytes()
                    .strip_suffix(b"\xaf")
                    .unwrap()
                    .iter()
                    .chain(b"\0")
                    .copied()
                    .collect::<Vec<_>>()
                    .as_slice()
            )
            .contains("no text")
        );
        assert!(problem(b"\xff\xfeO\0n").contains("half a character"));
        assert!(problem(b"\xff\xfe\0\xd8O\0").contains("half a character"));
    }

    #[test]
    fn lines_have_a_limit() {
        let lines = |text: &str, limit| {
            let mut reader = io::BufReader::with_capacity(3, text.as_bytes());
            let (mut line, mut found) = (Vec::new(), Vec::new());
            loop {
                let end = read_line(&mut reader, &mut line, limit).unwrap();
                if end == LineEnd::Nothing {
                    return found;
                }
                found.push((String::from_utf8(line.clone()).unwrap(), end));
            }
        };
        let whole = |text: &str| (text.to_owned(), LineEnd::Whole);
        let part = |text: &str| (text.to_owned(), LineEnd::GoesOn);
        assert_eq!(lines("ab\r\n\ncd", 10), [whole("ab"), whole(""), whole("cd")]);
        assert_eq!(lines("abcdef\nx\n", 4), [part("abcd"), whole("ef"), whole("x")]);
        assert_eq!(lines("éééé", 3), [part("éé"), whole("éé")]);
        assert_eq!(lines("abcd\n", 4), [whole("abcd")]);
    }
}
