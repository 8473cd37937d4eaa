//! What requests have in common, and which of them go through the model together.

use super::request::{ScoringOptions, Sequence};

/// Least tokens that contexts must have in common for their keys and values to be computed once.
const SHORTEST_ROOT: usize = 32;

/// Cached tokens that are copied at once, by tokens that are computed at once.
const COPIED: usize = 16;

/// Sequences that begin with the same tokens.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    /// What they begin with; often nothing.
    pub root: Vec<u32>,
    /// What follows, by what goes through a layer together.
    pub batches: Vec<Layout>,
}

/// Contexts behind a root that go through a layer together, and the continuations that branch off them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Tokens of each context; never empty.
    pub stems: Vec<Vec<u32>>,
    /// The continuations that go through a layer together.
    pub branches: Vec<Branches>,
    /// What is to be predicted.
    pub predictions: Vec<Prediction>,
}

/// Continuations that go through a layer together.
#[derive(Debug, Default)]
pub(super) struct Branches {
    /// The stem of each.
    pub owners: Vec<usize>,
    /// Tokens of each, without the last; never empty.
    pub tokens: Vec<Vec<u32>>,
}

/// A token that is predicted at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prediction {
    /// Whose continuation it is part of.
    pub sequence: usize,
    /// The token.
    pub target: u32,
    /// The branches, or `None` for the stems.
    pub part: Option<usize>,
    /// Which of them.
    pub row: usize,
    /// The token behind which it stands.
    pub position: usize,
}

/// A context with its continuations.
struct Stem<'a> {
    /// The context; with a single continuation also that, but for its last token.
    tokens: &'a [u32],
    /// Tokens of the context alone.
    context: usize,
    branches: Vec<Branch<'a>>,
}

struct Branch<'a> {
    /// What is read behind the stem.
    tokens: &'a [u32],
    /// What is predicted, from the context's last token on.
    targets: &'a [u32],
    sequence: usize,
}

/// All sequences in bundles, and the bundles in waves that share one reading of the layers. A wave has at most `most` tokens, unless
/// one batch alone has more.
pub(super) fn lay_out(sequences: &[Sequence], options: &ScoringOptions, most: usize) -> Vec<Vec<Bundle>> {
    let mut waves: Vec<Vec<Bundle>> = Vec::new();
    let mut room = 0;
    for (root, stems) in roots(stems(sequences, options.share), options.share) {
        let mut begun = false;
        for batch in batches(stems, root.len(), options.batch_tokens) {
            let needed = batch.padded_tokens();
            if waves.is_empty() || needed > room {
                waves.push(Vec::new());
                (room, begun) = (most, false);
            }
            let Some(wave) = waves.last_mut() else { continue };
            if !begun {
                wave.push(Bundle {
                    root: root.to_vec(),
                    batches: Vec::new(),
                });
                room = room.saturating_sub(root.len());
                begun = true;
            }
            room = room.saturating_sub(needed);
            if let Some(bundle) = wave.last_mut() {
                bundle.batches.push(batch);
            }
        }
    }
    waves
}

/// Sequences by context, in the order of the contexts' tokens.
fn stems(sequences: &[Sequence], share: bool) -> Vec<Stem<'_>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    let context = |index: &usize| &sequences[*index].input[..sequences[*index].stem()];
    order.sort_by(|a, b| context(a).cmp(context(b)));
    let stem = |group: &[usize]| {
        let context = sequences[group[0]].stem();
        let read = match group {
            [alone] => sequences[*alone].input.len(),
            _ => context,
        };
        let branch = |index: &usize| Branch {
            tokens: &sequences[*index].input[read..],
            targets: &sequences[*index].targets,
            sequence: *index,
        };
        Stem {
            tokens: &sequences[group[0]].input[..read],
            context,
            branches: group.iter().map(branch).collect(),
        }
    };
    order
        .chunk_by(|a, b| share && context(a) == context(b))
        .map(stem)
        .collect()
}

/// Sorted stems by what they begin with, if that is long enough; those that share no beginning come last, with an empty one.
/// Every context keeps at least one token, whose prediction is asked for.
fn roots(stems: Vec<Stem<'_>>, share: bool) -> Vec<(&[u32], Vec<Stem<'_>>)> {
    let mut found: Vec<(&[u32], Vec<Stem<'_>>)> = Vec::new();
    let mut alone = Vec::new();
    let mut open: Vec<Stem<'_>> = Vec::new();
    let mut root = 0;
    for stem in stems {
        let joint = open.last().map_or(0, |last| common(last.tokens, stem.tokens));
        let joint = joint.min(root).min(stem.context - 1);
        let count = open.len();
        // As much or more is saved with it.
        let joins = share && joint >= SHORTEST_ROOT && joint * count >= root * count.saturating_sub(1);
        if !joins {
            close(std::mem::take(&mut open), root, &mut found, &mut alone);
        }
        root = if joins { joint } else { stem.context - 1 };
        open.push(stem);
    }
    close(open, root, &mut found, &mut alone);
    found.push((&[], alone));
    found
}

fn close<'a>(
    stems: Vec<Stem<'a>>,
    root: usize,
    found: &mut Vec<(&'a [u32], Vec<Stem<'a>>)>,
    alone: &mut Vec<Stem<'a>>,
) {
    match stems.first() {
        Some(first) if stems.len() > 1 => found.push((&first.tokens[..root], stems)),
        _ => alone.extend(stems),
    }
}

/// Number of tokens that two sequences begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Stems of similar length together. Both what is computed at once and what is copied from shared caches is bounded.
fn batches(mut stems: Vec<Stem<'_>>, root: usize, batch_tokens: usize) -> Vec<Layout> {
    stems.sort_by_key(|stem| std::cmp::Reverse(stem.tokens.len()));
    let mut found = Vec::new();
    let mut rest = stems.as_slice();
    while let Some(longest) = rest.first() {
        let count = at_once(longest.tokens.len() - root, root, batch_tokens).min(rest.len());
        let (batch, behind) = rest.split_at(count);
        found.push(Layout::of(batch, root, batch_tokens));
        rest = behind;
    }
    found
}

/// Sequences of `tokens` new tokens behind `cached` ones that are computed at once.
fn at_once(tokens: usize, cached: usize, batch_tokens: usize) -> usize {
    let computed = batch_tokens / tokens.max(1);
    let copied = (COPIED * batch_tokens).checked_div(cached).unwrap_or(computed);
    computed.min(copied).max(1)
}

impl Layout {
    fn of(stems: &[Stem<'_>], root: usize, batch_tokens: usize) -> Self {
        let mut layout = Self {
            stems: stems.iter().map(|stem| stem.tokens[root..].to_vec()).collect(),
            ..Self::default()
        };
        let mut branches: Vec<(usize, &Branch<'_>)> = Vec::new();
        for (row, stem) in stems.iter().enumerate() {
            for branch in &stem.branches {
                layout.predict(stem, branch, None, row, root);
                if !branch.tokens.is_empty() {
                    branches.push((row, branch));
                }
            }
        }
        branches.sort_by_key(|(_, branch)| std::cmp::Reverse(branch.tokens.len()));
        let cached = stems.first().map_or(0, |longest| longest.tokens.len());
        let mut rest = branches.as_slice();
        while let Some((_, longest)) = rest.first() {
            let count = at_once(longest.tokens.len(), cached, batch_tokens).min(rest.len());
            let (batch, behind) = rest.split_at(count);
            let part = layout.branches.len();
            for (row, (owner, branch)) in batch.iter().enumerate() {
                layout.predict(&stems[*owner], branch, Some(part), row, root);
            }
            layout.branches.push(Branches {
                owners: batch.iter().map(|(owner, _)| *owner).collect(),
                tokens: batch.iter().map(|(_, branch)| branch.tokens.to_vec()).collect(),
            });
            rest = behind;
        }
        layout
    }

    /// Adds the predictions that stand behind tokens of the stem, or of the branch if `part` is given.
    fn predict(&mut self, stem: &Stem<'_>, branch: &Branch<'_>, part: Option<usize>, row: usize, root: usize) {
        for (index, target) in branch.targets.iter().enumerate() {
            // The token of the whole sequence behind which it stands.
            let behind = stem.context - 1 + index;
            let position = match part {
                None if behind < stem.tokens.len() => behind - root,
                Some(_) if behind >= stem.tokens.len() => behind - stem.tokens.len(),
                _ => continue,
            };
            self.predictions.push(Prediction {
                sequence: branch.sequence,
                target: *target,
                part,
                row,
                position,
            });
        }
    }

    /// Tokens that go through a layer, padding included.
    fn padded_tokens(&self) -> usize {
        let padded = |rows: &[Vec<u32>]| rows.len() * rows.iter().map(Vec::len).max().unwrap_or(0);
        padded(&self.stems)
            + self
                .branches
                .iter()
                .map(|branches| padded(&branches.tokens))
                .sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Request;
    use super::*;

    fn sequences(requests: &[(&[u32], &[u32])]) -> Vec<Sequence> {
        let sequence = |(context, continuation): &(&[u32], &[u32])| {
            let request = Request {
                context: context.to_vec(),
                continuation: continuation.to_vec(),
            };
            Sequence::of(0, &request, 1000, 1000).unwrap()
        };
        requests.iter().map(sequence).collect()
    }

    /// Each predicted token with everything that the model has read before it.
    fn read(waves: &[Vec<Bundle>]) -> Vec<(usize, Vec<u32>, u32)> {
        let mut found = Vec::new();
        for bundle in waves.iter().flatten() {
            for batch in &bundle.batches {
                for asked in &batch.predictions {
                    let mut before = bundle.root.clone();
                    match asked.part {
                        None => before.extend(&batch.stems[asked.row][..=asked.position]),
                        Some(part) => {
                            let branches = &batch.branches[part];
                            before.extend(&batch.stems[branches.owners[asked.row]]);
                            before.extend(&branches.tokens[asked.row][..=asked.position]);
                        }
                    }
                    found.push((asked.sequence, before, asked.target));
                }
            }
        }
        found.sort();
        found
    }

    fn expected(sequences: &[Sequence]) -> Vec<(usize, Vec<u32>, u32)> {
        let mut found = Vec::new();
        for (index, sequence) in sequences.iter().enumerate() {
            for (place, target) in sequence.targets.iter().enumerate() {
                found.push((index, sequence.input[..sequence.stem() + place].to_vec(), *target));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn every_token_is_predicted_once_behind_what_comes_before_it() {
        let long: Vec<u32> = (100..180).collect();
        let question = |number: u32| [long.as_slice(), &[number, 7]].concat();
        let (first, second) = (question(1), question(2));
        let asked = sequences(&[
            (&first, &[5]),
            (&first, &[6]),
            (&second, &[5, 6, 7]),
            (&second, &[5, 8]),
            (&[1, 2, 3], &[4, 5, 6]),
            (&[1], &[9]),
            (&long, &[1, 7, 5]),
        ]);
        for share in [true, false] {
            for (batch_tokens, most) in [(1, 1), (8, 100), (512, 10_000)] {
                let options = ScoringOptions {
                    batch_tokens,
                    share,
                    ..ScoringOptions::default()
                };
                let waves = lay_out(&asked, &options, most);
                assert_eq!(read(&waves), expected(&asked), "{share} {batch_tokens} {most}");
                assert!(waves.iter().flatten().any(|bundle| bundle.root.len() >= 79) == share);
                let fits = match most {
                    1 => waves.len() > 1,
                    100 => true,
                    _ => waves.len() == 1,
                };
                assert!(fits, "{} waves of {most}", waves.len());
            }
        }
    }

    #[test]
    fn single_tokens_need_no_branch() {
        let asked = sequences(&[(&[1, 2], &[3]), (&[1, 2], &[4])]);
        let waves = lay_out(&asked, &ScoringOptions::default(), 1000);
        let batch = &waves[0][0].batches[0];
        assert_eq!(
            (batch.stems.len(), batch.branches.len(), batch.predictions.len()),
            (1, 0, 2)
        );
    }
}
