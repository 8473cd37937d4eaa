//! The machine that a pickle is a program for, with what a saved state dict needs and nothing else.
//!
//! A pickle can name any function of Python and have it called. Here a name is looked up in a list of a dozen, and what they do is done by
//! this file: none of them is a function that is called. Every other name and every other instruction is refused.

use std::collections::{HashMap, HashSet};

use safetensors::Dtype;

/// Most values that a program may make.
const MOST_VALUES: usize = 1 << 21;

/// Most marks on the stack at once.
const MOST_MARKS: usize = 1 << 12;

/// Most bytes of the name of a file.
const LONGEST_KEY: usize = 256;

/// Most dimensions of a tensor.
const DIMENSIONS: usize = 8;

/// A tensor of a state dict: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub storage: Storage,
    /// In numbers, from the beginning of the storage.
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// A run of numbers in a file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub dtype: Dtype,
    /// Name of the file in `data/`.
    pub key: String,
    pub elements: u64,
}

/// Values are told by their place in [`Machine::values`]: however deep they are nested, dropping them needs no stack.
type Id = usize;

#[derive(Debug, Clone)]
enum Value {
    None,
    /// A number or flag that does not count.
    Other,
    Integer(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Name(Name),
    Storage(Storage),
    Tensor(View),
}

/// What a program may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageOf(Dtype),
}

fn known(module: &str, name: &str) -> Option<Name> {
    let storage = |dtype| Some(Name::StorageOf(dtype));
    match (module, name) {
        ("collections", "OrderedDict") => Some(Name::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Name::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Name::RebuildParameter),
        ("torch", "FloatStorage") => storage(Dtype::F32),
        ("torch", "HalfStorage") => storage(Dtype::F16),
        ("torch", "BFloat16Storage") => storage(Dtype::BF16),
        ("torch", "DoubleStorage") => storage(Dtype::F64),
        ("torch", "LongStorage") => storage(Dtype::I64),
        ("torch", "IntStorage") => storage(Dtype::I32),
        ("torch", "ShortStorage") => storage(Dtype::I16),
        ("torch", "CharStorage") => storage(Dtype::I8),
        ("torch", "ByteStorage") => storage(Dtype::U8),
        ("torch", "BoolStorage") => storage(Dtype::BOOL),
        _ => None,
    }
}

fn lookup(module: &str, name: &str) -> Result<Name, String> {
    known(module, name).ok_or_else(|| {
        let named: String = format!("{module}.{name}").chars().take(LONGEST_KEY).collect();
        format!("it names {named}, which no state dict of weights needs; nothing of it was run")
    })
}

/// Runs a program; gives the tensors of the state dict that it makes, in their order.
///
/// # Errors
/// In words: an instruction or a name that is not known, or something else than a dict of tensors.
pub(super) fn state_dict(program: &[u8]) -> Result<Vec<(String, View)>, String> {
    let mut machine = Machine {
        rest: program,
        ..Machine::default()
    };
    while !machine.step()? {}
    let last = machine.pop()?;
    let Value::Dict(entries) = machine.value(last) else {
        return Err("it holds no dict of tensors".into());
    };
    // Names are compared before they are copied: many entries may share one.
    let mut names = HashSet::new();
    let entry = |(key, value): &(Id, Id)| match (machine.value(*key), machine.value(*value)) {
        (Value::Text(name), _) if !names.insert(name) => Err(format!("{name:?} is there twice")),
        (Value::Text(name), Value::Tensor(view)) => Ok((name.clone(), view.clone())),
        (Value::Text(name), _) => Err(format!(
            "{name:?} is no tensor: it holds more than the weights of a model"
        )),
        _ => Err("a tensor has no name".into()),
    };
    entries.iter().map(entry).collect()
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or("it ends in the middle of an instruction")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn text(&mut self, length: usize) -> Result<String, String> {
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8".into())
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("a name does not end")?;
        let line = self.text(end)?;
        self.take(1)?;
        Ok(line)
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.values.len() >= MOST_VALUES {
            return Err(format!("it makes more than {MOST_VALUES} values"));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self
                .stack
                .pop()
                .ok_or_else(|| "it takes a value that is not there".into()),
            false => Err("it takes a value that is not there".into()),
        }
    }

    fn top(&self) -> Result<Id, String> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| "it takes a value that is not there".into())
    }

    fn value(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// What lies above the last mark.
    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self
            .marks
            .pop()
            .ok_or("it takes values since a mark that is not there")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, length: usize) -> Result<(), String> {
        let mut parts = (0..length).map(|_| self.pop()).collect::<Result<Vec<Id>, String>>()?;
        parts.reverse();
        self.push(Value::Tuple(parts))
    }

    fn remember(&mut self, place: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(place, top);
        match self.memo.len() > MOST_VALUES {
            true => Err(format!("it remembers more than {MOST_VALUES} values")),
            false => Ok(()),
        }
    }

    fn recall(&mut self, place: u32) -> Result<(), String> {
        let id = *self
            .memo
            .get(&place)
            .ok_or("it recalls a value that it has not remembered")?;
        self.stack.push(id);
        match self.stack.len() > MOST_VALUES {
            true => Err(format!("it makes more than {MOST_VALUES} values")),
            false => Ok(()),
        }
    }

    /// One instruction; whether it was the last.
    fn step(&mut self) -> Result<bool, String> {
        match self.byte()? {
            b'.' => return Ok(true),
            0x80 => match self.byte()? {
                2..=5 => {}
                other => return Err(format!("it has protocol {other} of pickles; 2 to 5 are read")),
            },
            // The length of what follows.
            0x95 => drop(self.array::<8>()?),
            b'(' if self.marks.len() >= MOST_MARKS => return Err("it has too many marks".into()),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::None)?,
            0x88 | 0x89 => self.push(Value::Other)?,
            b'G' => {
                self.array::<8>()?;
                self.push(Value::Other)?;
            }
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Integer(number.into()))?;
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Integer(number.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Integer(number.into()))?;
            }
            0x8a => self.long()?,
            b'X' => {
                let length = self.number()? as usize;
                self.push_text(length)?;
            }
            0x8c | b'U' => {
                let length = self.byte()? as usize;
                self.push_text(length)?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let parts = self.since_mark()?;
                self.push(Value::Tuple(parts))?;
            }
            b'q' => {
                let place = self.byte()?;
                self.remember(place.into())?;
            }
            b'r' => {
                let place = self.number()?;
                self.remember(place)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let place = self.byte()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = self.number()?;
                self.recall(place)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Name(lookup(&module, &name)?))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let found = match (self.value(module), self.value(name)) {
                    (Value::Text(module), Value::Text(name)) => lookup(module, name)?,
                    _ => return Err("it names something by what is no text".into()),
                };
                self.push(Value::Name(found))?;
            }
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            b'b' => {
                // What an OrderedDict has beside its entries: versions of modules.
                self.pop()?;
                let of = self.top()?;
                if !matches!(self.value(of), Value::Dict(_)) {
                    return Err("it gives a state to something that has none".into());
                }
            }
            other => {
                return Err(format!(
                    "it has the instruction {other:#04x}, which no state dict of weights needs"
                ));
            }
        }
        Ok(false)
    }

    fn push_text(&mut self, length: usize) -> Result<(), String> {
        let text = self.text(length)?;
        self.push(Value::Text(text))
    }

    /// An integer of several bytes.
    fn long(&mut self) -> Result<(), String> {
        let length = self.byte()? as usize;
        let bytes = self.take(length)?.to_vec();
        if length > 8 {
            return self.push(Value::Other);
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..length].copy_from_slice(&bytes);
        self.push(Value::Integer(i64::from_le_bytes(all)))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let to = self.top()?;
        match &mut self.values[to] {
            Value::List(list) => list.extend(items),
            _ => return Err("it adds to something that is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), String> {
        let to = self.top()?;
        let pairs = items.chunks(2).map(|pair| match pair {
            [key, value] => Ok((*key, *value)),
            _ => Err("a key has no value".to_owned()),
        });
        let pairs = pairs.collect::<Result<Vec<_>, String>>()?;
        match &mut self.values[to] {
            Value::Dict(entries) => entries.extend(pairs),
            _ => return Err("it sets a key of something that is no dict".into()),
        }
        Ok(())
    }

    /// `('storage', class, key, place, elements)`.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let storage = match *self.parts(id)? {
            [kind, class, key, _, elements] => match (
                self.value(kind),
                self.value(class),
                self.value(key),
                self.value(elements),
            ) {
                (
                    Value::Text(kind),
                    Value::Name(Name::StorageOf(dtype)),
                    Value::Text(key),
                    Value::Integer(elements),
                ) if kind == "storage" && key.len() <= LONGEST_KEY => {
                    u64::try_from(*elements).ok().map(|elements| Storage {
                        dtype: *dtype,
                        key: key.clone(),
                        elements,
                    })
                }
                _ => None,
            },
            _ => None,
        };
        self.push(Value::Storage(
            storage.ok_or("it has a storage of another form than torch gives it")?,
        ))
    }

    fn parts(&self, id: Id) -> Result<&[Id], String> {
        match self.value(id) {
            Value::Tuple(parts) => Ok(parts),
            _ => Err("a value is no tuple".into()),
        }
    }

    /// A tuple of sizes.
    fn sizes(&self, id: Id) -> Result<Vec<u64>, String> {
        let parts = self.parts(id)?;
        if parts.len() > DIMENSIONS {
            return Err(format!("a tensor has {} dimensions", parts.len()));
        }
        let size = |part: &Id| match self.value(*part) {
            Value::Integer(size) => u64::try_from(*size).map_err(|_| "a size of a tensor is negative".to_owned()),
            _ => Err("a size of a tensor is no integer".to_owned()),
        };
        parts.iter().map(size).collect()
    }

    /// A call of one of the known names.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Name(name) = *self.value(callee) else {
            return Err("it calls something that is no function".into());
        };
        let arguments = self.parts(arguments)?.to_vec();
        let made = match (name, &arguments[..]) {
            (Name::OrderedDict, []) => Value::Dict(Vec::new()),
            (Name::RebuildParameter, [tensor, _, _]) if matches!(self.value(*tensor), Value::Tensor(_)) => {
                self.value(*tensor).clone()
            }
            (
                Name::RebuildTensor,
                [storage, offset, shape, strides, _, _] | [storage, offset, shape, strides, _, _, _],
            ) => {
                let (shape, strides) = (self.sizes(*shape)?, self.sizes(*strides)?);
                match (self.value(*storage), self.value(*offset)) {
                    (Value::Storage(storage), Value::Integer(offset)) if shape.len() == strides.len() => {
                        Value::Tensor(View {
                            storage: storage.clone(),
                            offset: u64::try_from(*offset).map_err(|_| "a tensor begins before its storage")?,
                            shape,
                            strides,
                        })
                    }
                    _ => return Err("a tensor is described in another form than torch gives it".into()),
                }
            }
            _ => return Err(format!("it calls {name:?} in another form than torch does")),
        };
        self.push(made)
    }
}
