//! Bundles of sequences on their way through the layers.

use transmla_core::burn::tensor::{Device, Tensor};
use transmla_core::model::{LayerCache, LayerRotary};
use transmla_core::{CacheFormat, CoreError, DecoderLayer, LayeredModel, ModelConfig, TokenBatch};

use super::layout::{Branches, Bundle, Layout, Prediction};
use crate::observer::Progress;

/// A layer and which one it is.
struct Indexed {
    index: usize,
    layer: DecoderLayer,
}

/// Sequences of one or several lengths, padded at their ends, and where they are in the model.
struct Padded {
    /// `[sequences, longest, hidden]`.
    state: Tensor<3>,
    rotary: LayerRotary,
    lengths: Vec<usize>,
}

impl Padded {
    /// Embeds sequences that stand behind as many tokens as `starts` says.
    fn begin(model: &dyn LayeredModel, tokens: &[Vec<u32>], starts: &[usize]) -> Result<Self, CoreError> {
        let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut ids = Vec::with_capacity(tokens.len() * longest);
        for row in tokens {
            ids.extend(row.iter().map(|id| i64::from(*id)));
            // What stands behind the end is seen by nobody.
            let padding = row.last().map_or(0, |id| i64::from(*id));
            ids.resize(ids.len() + longest - row.len(), padding);
        }
        let batch = TokenBatch::from_ids(ids, tokens.len(), longest)?;
        Ok(Self {
            state: model.embed(&batch)?,
            rotary: LayerRotary::of_each(&model.config().rope, starts, longest, model.device()),
            lengths,
        })
    }

    fn attend(&mut self, layer: &Indexed, cache: Option<&mut LayerCache>) {
        let device: Device = self.state.device();
        // The old state is released before the layer runs on it.
        let state = std::mem::replace(&mut self.state, Tensor::empty([1, 1, 1], &device));
        self.state = layer.layer.attend(state, self.rotary.of(layer.index), cache);
    }
}

/// A batch of stems with its branches.
pub(super) struct Batch {
    stems: Padded,
    branches: Vec<(Vec<usize>, Padded)>,
    /// What is to be predicted.
    pub predictions: Vec<Prediction>,
}

impl Batch {
    fn begin(model: &dyn LayeredModel, layout: Layout, root: usize) -> Result<Self, CoreError> {
        let Layout {
            stems,
            branches,
            predictions,
        } = layout;
        let branch = |Branches { owners, tokens }: Branches| {
            let starts: Vec<usize> = owners.iter().map(|owner| root + stems[*owner].len()).collect();
            Ok((owners, Padded::begin(model, &tokens, &starts)?))
        };
        let branches = branches.into_iter().map(branch).collect::<Result<_, CoreError>>()?;
        Ok(Self {
            stems: Padded::begin(model, &stems, &vec![root; stems.len()])?,
            branches,
            predictions,
        })
    }

    /// Takes everything through the attention of a layer.
    fn attend(
        &mut self,
        layer: &Indexed,
        config: &ModelConfig,
        format: Option<CacheFormat>,
        root: Option<&Root>,
        shared: Option<&LayerCache>,
    ) -> Result<(), CoreError> {
        let (sequences, behind) = (self.stems.lengths.len(), root.map_or(0, |root| root.0.lengths[0]));
        let longest = self.stems.state.dims()[1];
        let mut cache = match shared {
            Some(shared) => Some(shared.copies_of(&vec![0; sequences])),
            None if self.branches.is_empty() && format.is_none() => None,
            None => Some(LayerCache::in_format(config, longest, format.unwrap_or_default())?),
        };
        self.stems.attend(layer, cache.as_mut());
        let Some(mut cache) = cache.filter(|_| !self.branches.is_empty()) else {
            return Ok(());
        };
        let lengths: Vec<usize> = self.stems.lengths.iter().map(|length| behind + length).collect();
        cache.truncate(&lengths);
        for (owners, branches) in &mut self.branches {
            branches.attend(layer, Some(&mut cache.copies_of(owners)));
        }
        Ok(())
    }

    fn states(&mut self) -> impl Iterator<Item = &mut Tensor<3>> {
        let branches = self.branches.iter_mut().map(|(_, branches)| &mut branches.state);
        std::iter::once(&mut self.stems.state).chain(branches)
    }

    /// The residual stream at the place of a prediction's tokens, `[sequences, longest, hidden]`.
    pub fn state(&self, part: Option<usize>) -> &Tensor<3> {
        match part {
            None => &self.stems.state,
            Some(part) => &self.branches[part].1.state,
        }
    }

    /// Number of parts that branch off.
    pub fn parts(&self) -> usize {
        self.branches.len()
    }
}

/// What all sequences of a bundle begin with.
struct Root(Padded);

/// Bundles that share one reading of the layers.
pub(super) struct Wave(Vec<(Option<Root>, Vec<Batch>)>);

impl Wave {
    /// Embeds everything.
    pub fn begin(model: &dyn LayeredModel, bundles: Vec<Bundle>) -> Result<Self, CoreError> {
        let begin = |bundle: Bundle| {
            let length = bundle.root.len();
            let root = match length {
                0 => None,
                _ => Some(Root(Padded::begin(model, &[bundle.root], &[0])?)),
            };
            let batches = bundle
                .batches
                .into_iter()
                .map(|layout| Batch::begin(model, layout, length));
            Ok((root, batches.collect::<Result<_, CoreError>>()?))
        };
        bundles.into_iter().map(begin).collect::<Result<_, _>>().map(Self)
    }

    /// The same behind the last layer.
    pub fn through_layers(
        mut self,
        model: &dyn LayeredModel,
        format: Option<CacheFormat>,
        progress: &mut Progress<'_>,
    ) -> Result<Self, CoreError> {
        let config = model.config();
        for index in 0..config.num_hidden_layers {
            let layer = Indexed {
                index,
                layer: model.layer(index)?,
            };
            for (root, batches) in &mut self.0 {
                let shared = match root {
                    None => None,
                    Some(Root(root)) => {
                        let mut cache = LayerCache::in_format(config, root.lengths[0], format.unwrap_or_default())?;
                        root.attend(&layer, Some(&mut cache));
                        Some(cache)
                    }
                };
                for batch in batches {
                    batch.attend(&layer, config, format, root.as_ref(), shared.as_ref())?;
                    progress.step();
                }
            }
            // All together, so that an expert is read once for them.
            let states = self.0.iter_mut().flat_map(|(root, batches)| {
                let root = root.iter_mut().map(|Root(root)| &mut root.state);
                root.chain(batches.iter_mut().flat_map(Batch::states))
            });
            layer
                .layer
                .feed_forward_each(&mut states.collect::<Vec<_>>(), &mut || ())?;
        }
        Ok(self)
    }

    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.0.iter().flat_map(|(_, batches)| batches)
    }
}
