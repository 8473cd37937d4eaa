//! Rotary position embeddings by layer.

use super::rope::RopeConfig;

/// The rotary position embedding of each layer; layers with the same one share it.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRopes {
    /// Those that differ, in the order in which layers first have them; never empty.
    kinds: Vec<RopeConfig>,
    /// Index among them by layer; empty if all layers have the first.
    of_layer: Vec<usize>,
}

impl LayerRopes {
    /// One for all layers.
    pub fn same(rope: RopeConfig) -> Self {
        Self {
            kinds: vec![rope],
            of_layer: Vec::new(),
        }
    }

    /// One for each layer: `first` for layer 0, then those of `rest`.
    pub fn by_layer(first: RopeConfig, rest: impl IntoIterator<Item = RopeConfig>) -> Self {
        let (mut kinds, mut of_layer) = (vec![first], vec![0]);
        for rope in rest {
            let known = kinds.iter().position(|kind| *kind == rope);
            of_layer.push(known.unwrap_or(kinds.len()));
            if known.is_none() {
                kinds.push(rope);
            }
        }
        if kinds.len() == 1 {
            of_layer.clear();
        }
        Self { kinds, of_layer }
    }

    /// That of a layer.
    pub fn of(&self, layer: usize) -> &RopeConfig {
        &self.kinds[self.kind_of(layer)]
    }

    /// Index of a layer's among [`Self::kinds`].
    pub fn kind_of(&self, layer: usize) -> usize {
        self.of_layer.get(layer).copied().unwrap_or(0)
    }

    /// That of the first layer that has positions, or of the first layer if none has.
    pub fn main(&self) -> &RopeConfig {
        self.kinds
            .iter()
            .find(|rope| rope.has_positions())
            .unwrap_or(&self.kinds[0])
    }

    /// Those that differ among layers with positions.
    pub fn turning(&self) -> impl Iterator<Item = &RopeConfig> {
        self.kinds.iter().filter(|rope| rope.has_positions())
    }

    /// Those that differ, in the order in which layers first have them; there is at least one.
    pub fn kinds(&self) -> &[RopeConfig] {
        &self.kinds
    }

    /// The same layers with other embeddings.
    pub fn map(&self, change: impl Fn(&RopeConfig) -> RopeConfig) -> Self {
        let changed = |layer: &usize| change(&self.kinds[*layer]);
        match &self.of_layer[..] {
            [] => Self::same(change(&self.kinds[0])),
            [first, rest @ ..] => Self::by_layer(changed(first), rest.iter().map(changed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rope::RopeLayout;
    use super::super::scaling::RopeScaling;
    use super::*;

    fn rope(theta: f64) -> RopeConfig {
        RopeConfig {
            theta,
            dim: 8,
            rotated: 8,
            layout: RopeLayout::HalfSplit,
            scaling: RopeScaling::Default,
        }
    }

    #[test]
    fn layers_with_the_same_share_it() {
        let ropes = LayerRopes::by_layer(rope(1e4), [1e4, 1e6, 1e4].map(rope));
        assert_eq!(ropes.kinds(), [rope(1e4), rope(1e6)]);
        assert_eq!([0, 1, 2, 3].map(|layer| ropes.kind_of(layer)), [0, 0, 1, 0]);
        assert_eq!(ropes.of(2).theta, 1e6);
    }

    #[test]
    fn layers_without_positions_are_not_the_main_ones() {
        let still = RopeConfig {
            rotated: 0,
            ..rope(1e4)
        };
        let ropes = LayerRopes::by_layer(still, [rope(1e4), still]);
        assert_eq!(ropes.main(), &rope(1e4));
        assert_eq!(ropes.turning().count(), 1);
        assert_eq!(LayerRopes::same(still).main(), &still);
    }

    #[test]
    fn a_list_of_equal_ones_is_one() {
        let same = LayerRopes::same(rope(1e4));
        assert_eq!(LayerRopes::by_layer(rope(1e4), [rope(1e4)]), same);
        let two = LayerRopes::by_layer(rope(1e4), [rope(1e6)]);
        assert_eq!(two.map(|_| rope(1e4)), same);
        assert_eq!(two.map(|kind| *kind), two);
    }
}
