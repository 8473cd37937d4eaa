//! The values of a file's keys.

use super::cursor::{Cursor, LONGEST_TEXT};
use crate::error::CheckpointError;

/// Most values of an array; the largest vocabularies have half a million merges.
const LONGEST_ARRAY: u64 = 8 << 20;

/// Most bytes of a text in an array.
const LONGEST_WORD: u64 = 1 << 20;

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// The value of a key. Arrays are left in the file until they are asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Integer(i128),
    Number(f64),
    Bool(bool),
    Text(String),
    Array(Array),
}

/// Where an array is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Array {
    /// Kind of its values.
    kind: u32,
    count: u64,
    /// Place of the first value.
    at: u64,
}

/// Bytes of a value of fixed size.
fn bytes_of(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

impl Value {
    pub fn read(cursor: &mut Cursor<'_>) -> Result<Self, CheckpointError> {
        match cursor.u32()? {
            TEXT => Ok(Self::Text(cursor.text(LONGEST_TEXT)?)),
            ARRAY => Ok(Self::Array(Array::skip(cursor)?)),
            kind => scalar(kind, cursor),
        }
    }
}

fn scalar(kind: u32, cursor: &mut Cursor<'_>) -> Result<Value, CheckpointError> {
    Ok(match kind {
        0 => Value::Integer(u8::from_le_bytes(cursor.array()?).into()),
        1 => Value::Integer(i8::from_le_bytes(cursor.array()?).into()),
        2 => Value::Integer(u16::from_le_bytes(cursor.array()?).into()),
        3 => Value::Integer(i16::from_le_bytes(cursor.array()?).into()),
        4 => Value::Integer(cursor.u32()?.into()),
        5 => Value::Integer(i32::from_le_bytes(cursor.array()?).into()),
        6 => Value::Number(shortest(f32::from_le_bytes(cursor.array()?))),
        7 => Value::Bool(cursor.array::<1>()?[0] != 0),
        10 => Value::Integer(cursor.u64()?.into()),
        11 => Value::Integer(i64::from_le_bytes(cursor.array()?).into()),
        12 => Value::Number(f64::from_le_bytes(cursor.array()?)),
        other => {
            return Err(cursor.invalid(format!(
                "a value before byte {} has the unknown kind {other}",
                cursor.at()
            )));
        }
    })
}

/// The number with the fewest digits that is this one in single precision: `1e-5` was written, not `9.99999974e-6`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl Array {
    /// Goes over an array and finds out that it is whole.
    fn skip(cursor: &mut Cursor<'_>) -> Result<Self, CheckpointError> {
        let (kind, count) = (cursor.u32()?, cursor.u64()?);
        if count > LONGEST_ARRAY {
            return Err(cursor.invalid(format!(
                "an array before byte {} has {count} values, at most {LONGEST_ARRAY} are possible",
                cursor.at()
            )));
        }
        let at = cursor.at();
        match (bytes_of(kind), kind) {
            (Some(bytes), _) => cursor.skip(count * bytes)?,
            (None, TEXT) => (0..count).try_for_each(|_| cursor.skip_text())?,
            (None, other) => {
                return Err(cursor.invalid(format!(
                    "an array before byte {at} has values of kind {other}; texts and numbers are possible"
                )));
            }
        }
        Ok(Self { kind, count, at })
    }

    /// Its texts; nothing if it has other values.
    pub fn texts(self, cursor: &mut Cursor<'_>) -> Result<Option<Vec<String>>, CheckpointError> {
        if self.kind != TEXT {
            return Ok(None);
        }
        // Its length was found out by going over it: no more than the file holds.
        let mut texts = Vec::new();
        for _ in 0..self.count {
            texts.push(cursor.text(LONGEST_WORD)?);
        }
        Ok(Some(texts))
    }

    /// Its numbers; nothing if it has other values.
    pub fn numbers(self, cursor: &mut Cursor<'_>) -> Result<Option<Vec<f64>>, CheckpointError> {
        let mut numbers = Vec::new();
        for _ in 0..self.count {
            numbers.push(match self.kind {
                TEXT => return Ok(None),
                kind => match scalar(kind, cursor)? {
                    Value::Integer(integer) => integer as f64,
                    Value::Number(number) => number,
                    Value::Bool(flag) => f64::from(u8::from(flag)),
                    Value::Text(_) | Value::Array(_) => return Ok(None),
                },
            });
        }
        Ok(Some(numbers))
    }

    /// Where its values begin.
    pub fn place(self) -> u64 {
        self.at
    }
}
