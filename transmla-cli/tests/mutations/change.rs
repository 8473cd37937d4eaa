//! Changes to a file.

use serde_json::{Value, json};

/// SplitMix64: the same numbers everywhere.
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this; 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What files are made of, so that changes often leave them readable.
const WORDS: [&str; 20] = [
    "0",
    "9",
    "-1",
    "1e308",
    "99999999999999999999",
    "4294967296",
    "[",
    "]",
    "{",
    "}",
    "\"",
    ",",
    ":",
    "null",
    "true",
    "\u{e9}",
    "\0",
    "F64",
    "\n",
    "\\u0000",
];

/// A damaged copy.
pub fn changed(seed: &[u8], is_json: bool, random: &mut Random) -> Vec<u8> {
    if is_json
        && random.below(2) == 0
        && let Ok(mut value) = serde_json::from_slice::<Value>(seed)
    {
        for _ in 0..=random.below(2) {
            change_value(&mut value, random);
        }
        return value.to_string().into_bytes();
    }
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(3) {
        change_bytes(&mut bytes, random);
    }
    bytes
}

fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    // Half of the changes near an end: headers and footers are there.
    let length = bytes.len();
    let at = match random.below(4) {
        0 => random.below(length.min(64)),
        1 => length - 1 - random.below(length.min(1500)).min(length.saturating_sub(1)),
        _ => random.below(length),
    };
    let word = || WORDS[0].as_bytes();
    match random.below(7) {
        0 => bytes.truncate(at),
        1 if at < length => bytes[at] ^= 1 << random.below(8),
        2 if at < length => bytes[at] = random.next() as u8,
        3 => {
            let word = WORDS[random.below(WORDS.len())].as_bytes();
            bytes.splice(at..at, word.iter().copied());
        }
        4 => {
            let word = WORDS[random.below(WORDS.len())].as_bytes();
            let end = (at + word.len()).min(bytes.len());
            bytes.splice(at..end, word.iter().copied());
        }
        5 => {
            let end = (at + 1 + random.below(200)).min(bytes.len());
            let piece = bytes[at.min(end)..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => {
            let end = (at + 1 + random.below(40)).min(bytes.len());
            bytes.drain(at.min(end)..end);
        }
    }
    if bytes.is_empty() {
        bytes.extend(word());
    }
}

/// Replaces, removes or repeats something somewhere in a value.
fn change_value(value: &mut Value, random: &mut Random) {
    let inside = match value {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    if inside == 0 || random.below(6) == 0 {
        *value = odd_value(random);
        return;
    }
    let at = random.below(inside);
    match value {
        Value::Array(items) => match random.below(8) {
            0 => drop(items.remove(at)),
            1 => items.push(items[at].clone()),
            _ => change_value(&mut items[at], random),
        },
        Value::Object(members) => {
            let Some(key) = members.keys().nth(at).cloned() else {
                return;
            };
            match random.below(8) {
                0 => drop(members.remove(&key)),
                1 => {
                    let moved = members.remove(&key).unwrap_or_default();
                    members.insert(format!("{key}x"), moved);
                }
                _ => change_value(&mut members[&key], random),
            }
        }
        _ => {}
    }
}

fn odd_value(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(1.5),
        json!(1e308),
        json!(u64::MAX),
        json!(4_294_967_295_u64),
        json!(2_147_483_648_u64),
        json!(""),
        json!("<s>"),
        json!("▁"),
        json!(" "),
        json!("e"),
        json!("(e+)+x"),
        json!("AAAAAA=="),
        json!("////fwAAAAAAAAAA"),
        json!([]),
        json!({}),
        json!([[], {}]),
        json!("é".repeat(300)),
    ];
    values[random.below(values.len())].clone()
}
