//! Where there is room for a text beside a point.

use plotters::style::RGBColor;

/// A text that belongs to a point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Label {
    /// Where the point is.
    pub place: (f64, f64),
    /// What is to be read.
    pub text: String,
    /// The colour of both.
    pub colour: RGBColor,
}

/// Where a label may be, relative to its point: right or left, above or below.
const CORNERS: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

impl Label {
    /// Where its text starts, and what it covers.
    fn at(&self, (right, above): (bool, bool)) -> ((f64, f64), Area) {
        let (x, y) = self.place;
        let width = 6.8 * self.text.len() as f64;
        let left = if right { x + 8.0 } else { x - 8.0 - width };
        let base = if above { y - 5.0 } else { y + 13.0 };
        let area = Area {
            left,
            top: base - 9.0,
            right: left + width,
            bottom: base + 1.0,
        };
        ((left, base), area)
    }
}

/// A rectangle that something covers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    /// What a marker covers.
    fn around((x, y): (f64, f64)) -> Self {
        Self {
            left: x - 5.0,
            top: y - 5.0,
            right: x + 5.0,
            bottom: y + 5.0,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }
}

/// The labels for which there is room, and where their texts start; none covers another or
/// another's point, or goes beyond `right`.
pub(crate) fn arrange(labels: Vec<Label>, right: f64) -> Vec<(Label, (f64, f64))> {
    let mut taken: Vec<Area> = labels.iter().map(|label| Area::around(label.place)).collect();
    let mut arranged = Vec::with_capacity(labels.len());
    for label in labels {
        let own = Area::around(label.place);
        let free = CORNERS.into_iter().map(|corner| label.at(corner)).find(|(_, area)| {
            let mut others = taken.iter().filter(|other| **other != own);
            area.right <= right && !others.any(|other| other.overlaps(area))
        });
        if let Some((start, area)) = free {
            taken.push(area);
            arranged.push((label, start));
        }
    }
    arranged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(x: f64, y: f64) -> Label {
        Label {
            place: (x, y),
            text: "12.3".into(),
            colour: RGBColor(0, 0, 0),
        }
    }

    #[test]
    fn goes_where_nothing_is() {
        let alone = arrange(vec![label(100.0, 100.0)], 400.0);
        assert_eq!(alone[0].1, (108.0, 95.0));
        let at_the_edge = arrange(vec![label(100.0, 100.0)], 110.0);
        assert!(at_the_edge[0].1.0 < 92.0);
        let crowded = arrange(vec![label(100.0, 100.0), label(118.0, 90.0)], 400.0);
        let starts: Vec<(f64, f64)> = crowded.iter().map(|(_, start)| *start).collect();
        assert_eq!(starts, [(108.0, 113.0), (126.0, 85.0)]);
        let heap: Vec<Label> = (0..40).map(|i| label(100.0 + f64::from(i % 7), 100.0)).collect();
        assert!((1..7).contains(&arrange(heap, 400.0).len()));
    }
}
