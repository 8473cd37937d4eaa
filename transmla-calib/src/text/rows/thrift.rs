//! Walking over a thrift structure (compact protocol) without building it.
//!
//! The headers of a parquet file say how much its reader is to allocate; this looks at those numbers first.

use std::io::{self, Read};

/// Deepest nesting of structures; parquet has five levels.
const DEPTH: usize = 16;

/// Most elements of one list; the longest in parquet have one for each column of each row group.
const ELEMENTS: u64 = 1 << 20;

/// An integer in the structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    /// The ids of the fields that lead to it, from the outermost structure in; lists do not count.
    pub path: [i16; 4],
    pub value: i64,
}

/// Walks over a structure and passes each integer to `seen`. Afterwards the reader is just past the structure.
pub(crate) fn walk(reader: &mut impl Read, seen: &mut impl FnMut(Number)) -> io::Result<()> {
    Walk { reader, seen }.structure(&mut Vec::new(), 0)
}

struct Walk<'a, R, F> {
    reader: &'a mut R,
    seen: &'a mut F,
}

fn invalid<T>(problem: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, problem))
}

impl<R: Read, F: FnMut(Number)> Walk<'_, R, F> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        invalid("a number is too long")
    }

    fn zigzag(&mut self) -> io::Result<i64> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.reader.by_ref().take(bytes), &mut io::sink())?;
        if skipped < bytes {
            invalid("it ends too early")
        } else {
            Ok(())
        }
    }

    fn structure(&mut self, path: &mut Vec<i16>, depth: usize) -> io::Result<()> {
        if depth > DEPTH {
            return invalid("too many structures inside each other");
        }
        let mut field = 0_i16;
        loop {
            let head = self.byte()?;
            if head & 15 == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                0 => self.zigzag()? as i16,
                delta => field.wrapping_add(i16::from(delta)),
            };
            path.push(field);
            // The value of a flag is its type.
            if !matches!(head & 15, 1 | 2) {
                self.value(head & 15, path, depth)?;
            }
            path.pop();
        }
    }

    fn value(&mut self, kind: u8, path: &mut Vec<i16>, depth: usize) -> io::Result<()> {
        match kind {
            1..=3 => self.byte().map(drop),
            4..=6 => {
                let value = self.zigzag()?;
                let mut fields = [0; 4];
                fields.iter_mut().zip(path.iter()).for_each(|(to, from)| *to = *from);
                (self.seen)(Number { path: fields, value });
                Ok(())
            }
            7 => self.skip(8),
            8 => {
                let bytes = self.varint()?;
                self.skip(bytes)
            }
            9 | 10 => {
                let head = self.byte()?;
                let size = match head >> 4 {
                    15 => self.varint()?,
                    size => u64::from(size),
                };
                if size > ELEMENTS {
                    return invalid("a list is too long");
                }
                (0..size).try_for_each(|_| self.value(head & 15, path, depth + 1))
            }
            12 => self.structure(path, depth + 1),
            _ => invalid("there is a value of unknown type"),
        }
    }
}
