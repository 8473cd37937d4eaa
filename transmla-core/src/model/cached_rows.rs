//! Rows of numbers kept per token, preallocated, for sequences of different lengths.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use transmla_checkpoint::StorageDtype;

use super::formats::{float, format_on};
use crate::kernels::{CacheFormat, CachedHead, QuantisedRow, Stored, on_host};

/// Rows kept for every token of every sequence and head, in one format.
///
/// On the CPU each head of each sequence has a buffer of its own, which kernels read where it lies and sequences of other
/// lengths do not pad; on other devices there is one tensor for all of them, in `f32` if the device does not know the format.
/// Quantised rows are in such buffers for every device: other devices are given copies in `f32`, made for each use.
/// The room for `capacity` tokens a sequence is taken when the first come, and doubles when it runs out.
///
/// Rows of a layer with a window are forgotten in blocks once no later token sees them.
#[derive(Debug, Clone)]
pub struct CachedRows {
    heads: usize,
    width: usize,
    capacity: usize,
    form: Form,
    /// Rows that a token sees, its own included; all of them if there is none.
    window: Option<usize>,
    /// Rows kept of each sequence, the last ones of its tokens.
    lengths: Vec<usize>,
    /// Rows of each sequence that were forgotten, in front of those.
    forgotten: Vec<usize>,
    kept: Option<Kept>,
}

/// How rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain(StorageDtype),
    Quantised(QuantisedRow),
}

impl Form {
    /// Bytes of a row of so many numbers.
    fn bytes(self, width: usize) -> usize {
        match self {
            Self::Plain(dtype) => width * dtype.bytes(),
            Self::Quantised(row) => row.bytes(),
        }
    }
}

#[derive(Debug, Clone)]
enum Kept {
    /// `[tokens, width]` for each head of each sequence.
    Host(Vec<Stored>),
    /// `[batch, heads, capacity, width]`; taken out while it is written to, so that the backend may write in place.
    Device(Option<Box<Tensor<4>>>),
}

impl CachedRows {
    pub(super) fn new(heads: usize, width: usize, capacity: usize, dtype: StorageDtype) -> Self {
        Self::of_form(heads, width, capacity, Form::Plain(dtype))
    }

    /// Quantised rows of each head.
    pub(super) fn quantised(heads: usize, row: QuantisedRow, capacity: usize) -> Self {
        Self::of_form(heads, row.numbers(), capacity, Form::Quantised(row))
    }

    fn of_form(heads: usize, width: usize, capacity: usize, form: Form) -> Self {
        Self {
            heads,
            width,
            capacity: capacity.max(1),
            form,
            window: None,
            lengths: Vec::new(),
            forgotten: Vec::new(),
            kept: None,
        }
    }

    /// The same for a layer whose tokens see no more than a window, before the first row.
    pub(super) fn within(self, window: Option<usize>) -> Self {
        let limit = window.map_or(usize::MAX, most_rows);
        Self {
            window,
            capacity: self.capacity.min(limit.saturating_add(1)),
            ..self
        }
    }

    /// Appends to each sequence `[batch, heads, new, width]`.
    ///
    /// # Panics
    /// If the heads, the width, or the batch of what is kept already are others.
    pub fn append(&mut self, new: Tensor<4>) {
        let [batch, heads, count, width] = new.dims();
        assert_eq!([heads, width], [self.heads, self.width], "a cache of other rows");
        if self.lengths.is_empty() {
            self.lengths = vec![0; batch];
            self.forgotten = vec![0; batch];
        }
        assert_eq!(batch, self.lengths.len(), "a cache of another batch");
        let (on_host, device) = (on_host(&new), new.device());
        let buffers = |buffer: &dyn Fn() -> Stored| Kept::Host((0..batch * heads).map(|_| buffer()).collect());
        let kept = self.kept.get_or_insert_with(|| match self.form {
            Form::Quantised(row) => buffers(&|| Stored::quantised(row, self.capacity)),
            Form::Plain(dtype) if on_host => buffers(&|| Stored::with_capacity(dtype, self.capacity * self.width)),
            Form::Plain(_) => Kept::Device(None),
        });
        match kept {
            Kept::Host(buffers) => {
                let data = new.into_data().convert::<f32>();
                let numbers = data.as_slice::<f32>().unwrap_or_default();
                for (buffer, numbers) in buffers.iter_mut().zip(numbers.chunks_exact(count * width)) {
                    buffer.extend(numbers);
                }
            }
            Kept::Device(rows) => {
                let end = count + self.lengths.iter().copied().max().unwrap_or(0);
                let grown = match end > self.capacity {
                    true => end.max(2 * self.capacity),
                    false => self.capacity,
                };
                let old = rows.take().map(|rows| *rows);
                let new = match &mut self.form {
                    Form::Plain(dtype) => {
                        *dtype = format_on(*dtype, &device);
                        new.cast(float(*dtype))
                    }
                    Form::Quantised(_) => new,
                };
                let mut room = with_room(old, [batch, heads, grown, width], new.dtype(), &device);
                self.capacity = grown;
                for index in runs(&self.lengths) {
                    let start = self.lengths[index.start];
                    let new = new.clone().narrow(0, index.start, index.len());
                    room = room.slice_assign([index, 0..heads, start..start + count, 0..width], new);
                }
                *rows = Some(Box::new(room));
            }
        }
        self.lengths.iter_mut().for_each(|length| *length += count);
    }

    /// Rows kept of each sequence: all of its tokens', or those that a window may still show; empty before the first.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Whether no row is kept of any sequence.
    pub fn is_empty(&self) -> bool {
        self.lengths.iter().all(|length| *length == 0)
    }

    /// Of what is appended for some tokens: `[batch, heads, tokens, width]`.
    pub(super) fn shape_of(&self, batch: usize, tokens: usize) -> [usize; 4] {
        [batch, self.heads, tokens, self.width]
    }

    /// The format they are kept in; before the first, the one asked for.
    pub fn format(&self) -> CacheFormat {
        match self.form {
            Form::Plain(dtype) => CacheFormat::Plain(dtype),
            Form::Quantised(row) => CacheFormat::Quantised(row.quantisation()),
        }
    }

    /// Bytes of all rows that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes_per_token() * self.lengths.iter().sum::<usize>()
    }

    /// Bytes kept of a token, scales included.
    pub fn bytes_per_token(&self) -> usize {
        self.heads * self.form.bytes(self.width)
    }

    /// Rows kept of a token.
    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    /// Numbers kept of a token.
    pub fn numbers_per_token(&self) -> usize {
        self.heads * self.width
    }

    /// Bytes that there is room for.
    pub fn allocated_bytes(&self) -> usize {
        match &self.kept {
            None => 0,
            Some(Kept::Host(buffers)) => buffers.iter().map(Stored::allocated_bytes).sum(),
            Some(Kept::Device(_)) => self.lengths.len() * self.capacity * self.bytes_per_token(),
        }
    }

    /// Forgets what no later token sees, once it is a quarter of a window: rows are then moved seldom.
    pub(super) fn forget(&mut self) {
        let Some(window) = self.window else { return };
        let (keep, most) = (window.saturating_sub(1), most_rows(window));
        let gone = |length: &usize| if *length > most { length - keep } else { 0 };
        let gone: Vec<usize> = self.lengths.iter().map(gone).collect();
        if gone.iter().all(|gone| *gone == 0) {
            return;
        }
        match &mut self.kept {
            Some(Kept::Host(buffers)) => {
                for (head, buffer) in buffers.iter_mut().enumerate() {
                    buffer.forget_first(gone[head / self.heads] * self.width, (most + 1) * self.width);
                }
            }
            Some(Kept::Device(rows)) => {
                if let Some(old) = rows.take() {
                    let longest = self.lengths.iter().zip(&gone).map(|(length, gone)| length - gone).max();
                    self.capacity = longest.unwrap_or(0).max(most + 1);
                    let dims = [self.lengths.len(), self.heads, self.capacity, self.width];
                    let mut room = with_room(None, dims, old.dtype(), &old.device());
                    for index in runs(&self.lengths) {
                        let gone = gone[index.start];
                        let rest = self.lengths[index.start] - gone;
                        let shown = old.clone().narrow(0, index.start, index.len()).narrow(2, gone, rest);
                        room = room.slice_assign([index, 0..self.heads, 0..rest, 0..self.width], shown);
                    }
                    *rows = Some(Box::new(room));
                }
            }
            None => {}
        }
        let sequences = self.lengths.iter_mut().zip(&mut self.forgotten);
        for ((length, forgotten), gone) in sequences.zip(gone) {
            *length -= gone;
            *forgotten += gone;
        }
    }

    /// Whether a sequence can go on behind its first `tokens` tokens: what those would show the next is still there.
    pub(super) fn goes_on_behind(&self, sequence: usize, tokens: usize) -> bool {
        let forgotten = self.forgotten.get(sequence).copied().unwrap_or(0);
        let seen = self.window.map_or(0, |window| (tokens + 1).saturating_sub(window));
        tokens == 0 || forgotten <= seen
    }

    /// Cuts each sequence to a number of tokens, if it has more; to none if it cannot go on behind so many.
    pub(super) fn truncate(&mut self, tokens: &[usize]) {
        for (sequence, tokens) in tokens.iter().enumerate().take(self.lengths.len()) {
            let keep = self.goes_on_behind(sequence, *tokens);
            let (length, forgotten) = (&mut self.lengths[sequence], &mut self.forgotten[sequence]);
            match keep && *tokens > 0 {
                true => *length = tokens.saturating_sub(*forgotten).min(*length),
                false => (*length, *forgotten) = (0, 0),
            }
        }
        if let Some(Kept::Host(buffers)) = &mut self.kept {
            for (head, buffer) in buffers.iter_mut().enumerate() {
                buffer.truncate(self.lengths[head / self.heads] * self.width);
            }
        }
    }

    /// Copies of sequences by index.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub(super) fn copies_of(&self, sequences: &[usize]) -> Self {
        let kept = self.kept.as_ref().map(|kept| match kept {
            Kept::Host(buffers) => {
                let heads = |sequence: &usize| buffers[sequence * self.heads..(sequence + 1) * self.heads].iter();
                Kept::Host(sequences.iter().flat_map(heads).cloned().collect())
            }
            Kept::Device(rows) => Kept::Device(rows.as_ref().map(|rows| {
                let indices: Vec<i32> = sequences.iter().map(|sequence| *sequence as i32).collect();
                let count = indices.len();
                let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &rows.device());
                Box::new((**rows).clone().select(0, indices))
            })),
        });
        let of_each = |counts: &[usize]| match counts.is_empty() {
            true => Vec::new(),
            false => sequences.iter().map(|sequence| counts[*sequence]).collect(),
        };
        Self {
            lengths: of_each(&self.lengths),
            forgotten: of_each(&self.forgotten),
            kept,
            ..*self
        }
    }

    /// The rows of several caches as those of one batch; `None` if they keep different things, or in different places.
    pub(super) fn join(mut caches: Vec<Self>) -> Option<Self> {
        let first = caches.first()?;
        let (heads, width, form, window) = (first.heads, first.width, first.form, first.window);
        let same = |rows: &Self| (rows.heads, rows.width, rows.form, rows.window) == (heads, width, form, window);
        if !caches.iter().all(same) {
            return None;
        }
        let capacity = caches.iter().map(|rows| rows.capacity).max()?;
        let lengths = caches.iter().flat_map(|rows| rows.lengths.clone()).collect();
        let forgotten = caches.iter().flat_map(|rows| rows.forgotten.clone()).collect();
        let (mut buffers, mut tensors) = (Vec::new(), Vec::new());
        for rows in &mut caches {
            match rows.kept.take()? {
                Kept::Host(part) => buffers.extend(part),
                Kept::Device(part) => {
                    let part = *part?;
                    let dims = [part.dims()[0], heads, capacity, width];
                    let (dtype, device) = (part.dtype(), part.device());
                    tensors.push(with_room(Some(part), dims, dtype, &device));
                }
            }
        }
        let kept = match (buffers.is_empty(), tensors.is_empty()) {
            (false, true) => Kept::Host(buffers),
            (true, false) => Kept::Device(Some(Box::new(Tensor::cat(tensors, 0)))),
            _ => return None,
        };
        Some(Self {
            heads,
            width,
            capacity,
            form,
            window,
            lengths,
            forgotten,
            kept: Some(kept),
        })
    }

    /// The buffers of all heads of all sequences, if they are in host memory.
    pub(super) fn host(&self) -> Option<&[Stored]> {
        match &self.kept {
            Some(Kept::Host(buffers)) => Some(buffers),
            _ => None,
        }
    }

    /// What attention reads of these rows and of values, if they are in host memory.
    pub(super) fn cached_heads<'a>(&'a self, values: Option<&'a Self>) -> Option<Vec<CachedHead<'a>>> {
        let keys = self.host()?;
        let values = match values {
            Some(values) => Some(values.host()?),
            None => None,
        };
        let head = |(index, keys): (usize, &'a Stored)| CachedHead {
            keys: keys.as_slice(),
            values: values.map(|values| values[index].as_slice()),
        };
        Some(keys.iter().enumerate().map(head).collect())
    }

    /// `[batch, heads, capacity, width]` as it is kept, at least as many rows as the longest sequence has tokens; nothing before
    /// the first token. From host memory it is a copy in f32 on the given device.
    ///
    /// Rows beyond the end of a sequence are finite and must be ignored.
    pub(super) fn kept_tensor(&self, device: &Device) -> Option<Tensor<4>> {
        match self.kept.as_ref()? {
            Kept::Device(rows) => Some((**rows.as_ref()?).clone()),
            Kept::Host(_) => self.tensor(device),
        }
    }

    /// `[batch, heads, longest, width]` in f32; `None` before the first token. From host memory it is a copy on the given device.
    ///
    /// Rows beyond the end of a sequence are finite and must be ignored.
    pub(super) fn tensor(&self, device: &Device) -> Option<Tensor<4>> {
        let longest = self.lengths.iter().copied().max()?;
        match self.kept.as_ref()? {
            Kept::Device(rows) => Some((**rows.as_ref()?).clone().narrow(2, 0, longest).cast(DType::F32)),
            Kept::Host(buffers) => {
                let mut numbers = Vec::with_capacity(buffers.len() * longest * self.width);
                for (index, buffer) in buffers.iter().enumerate() {
                    buffer.as_slice().append_to(&mut numbers);
                    numbers.resize((index + 1) * longest * self.width, 0.0);
                }
                let shape = [self.lengths.len(), self.heads, longest, self.width];
                Some(Tensor::from_data(TensorData::new(numbers, shape), device))
            }
        }
    }
}

/// Rows of a sequence that are kept behind a step, at most.
fn most_rows(window: usize) -> usize {
    window.saturating_add(window / 4)
}

/// A tensor with room for more tokens: the given one if it has as many already.
fn with_room(rows: Option<Tensor<4>>, dims: [usize; 4], dtype: DType, device: &Device) -> Tensor<4> {
    let [batch, heads, tokens, width] = dims;
    let room = |tokens| Tensor::<4>::zeros([batch, heads, tokens, width], device).cast(dtype);
    match rows {
        None => room(tokens),
        Some(rows) if rows.dims()[2] < tokens => {
            let more = tokens - rows.dims()[2];
            Tensor::cat(vec![rows, room(more)], 2)
        }
        Some(rows) => rows,
    }
}

/// Runs of neighbouring sequences of one length.
fn runs(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut start = 0;
    let range = |run: &[usize]| {
        let range = start..start + run.len();
        start = range.end;
        range
    };
    lengths.chunk_by(|a, b| a == b).map(range).collect()
}
