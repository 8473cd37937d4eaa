//! Perplexity against what each of some devices holds that share a model's heads: grouped-query attention as it was, one latent of all
//! heads (MLA), latents of groups of heads (GLA) and tied ones (GTA).

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::catalogue::Model;
use super::evaluated::Evaluated;

/// Numbers of devices in the table.
const DEVICES: [usize; 4] = [1, 2, 4, 8];

/// Bytes of a number in the table: bf16.
const BYTES: usize = 2;

/// What the heads of a model share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it was.
    Original,
    /// So many groups of heads with a rotary key and a latent of these widths.
    Latents {
        groups: usize,
        rope: usize,
        rank: usize,
        tied: bool,
    },
}

/// What was measured of a form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Numbers per token and layer on each device, by the number of devices.
    pub numbers: BTreeMap<usize, usize>,
    pub layers: usize,
    /// Of all weights.
    pub parameters: u64,
    /// Steps of reconstruction.
    pub refine: usize,
    pub like: Evaluated,
    pub unlike: Evaluated,
}

const fn latents(groups: usize, rope: usize, rank: usize) -> Form {
    Form::Latents {
        groups,
        rope,
        rank,
        tied: false,
    }
}

const fn tied(groups: usize, rope: usize, rank: usize) -> Form {
    Form::Latents {
        groups,
        rope,
        rank,
        tied: true,
    }
}

/// 4 key heads of 8.
const STORIES: &[Form] = &[
    Form::Original,
    latents(1, 8, 28),
    latents(1, 8, 12),
    latents(1, 4, 12),
    latents(2, 8, 12),
    latents(2, 8, 10),
    latents(2, 4, 12),
    latents(4, 4, 8),
    latents(4, 4, 5),
    tied(4, 4, 8),
    tied(2, 4, 8),
];

/// 3 key heads of 64.
const SMOLLM2: &[Form] = &[
    Form::Original,
    latents(1, 32, 128),
    latents(1, 32, 64),
    latents(3, 32, 64),
    latents(3, 16, 38),
    tied(3, 32, 64),
];

impl Form {
    /// Those of a model: MLA, as much in groups, and as much on each device.
    pub fn all(model: Model) -> &'static [Self] {
        match model {
            Model::Stories => STORIES,
            Model::Smollm2 => SMOLLM2,
            // One key head, and norms of queries and keys.
            Model::Gemma3 => &[],
        }
    }

    pub fn key(self) -> String {
        match self {
            Self::Original => "original".into(),
            Self::Latents { groups, rope, rank, .. } => {
                format!("{groups}x{rope}+{rank}/{}", self.title().to_lowercase())
            }
        }
    }

    /// Its full name.
    pub fn name(self, model: Model) -> String {
        format!("{}/devices/{}", model.key(), self.key())
    }

    /// `MLA`, `GLA-2`.
    fn title(self) -> String {
        match self {
            Self::Original => "GQA, the original".into(),
            Self::Latents { groups, tied: true, .. } => format!("GTA-{groups}"),
            Self::Latents { groups: 1, .. } => "MLA".into(),
            Self::Latents { groups, .. } => format!("GLA-{groups}"),
        }
    }

    fn widths(self) -> String {
        match self {
            Self::Original => String::new(),
            Self::Latents { rope, rank, .. } => format!("{rope}, {rank}"),
        }
    }
}

/// The full names of all forms.
pub fn names(model: Model) -> impl Iterator<Item = (String, Model)> {
    Form::all(model).iter().map(move |form| (form.name(model), model))
}

/// The table of a model.
pub fn section(text: &mut String, model: Model, texts: [&str; 2], measured: &BTreeMap<String, Held>) {
    let rows = Form::all(model)
        .iter()
        .filter_map(|form| Some((form, measured.get(&form.key())?)));
    let rows: Vec<(&Form, &Held)> = rows.collect();
    let Some(refined) = rows.iter().map(|(_, held)| held.refine).max() else {
        return;
    };
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\n### Shared by several devices\n\nBytes per token, in bf16 and all layers, that each of 1, 2, 4 or 8 devices holds which share the heads (tensor parallel): key \
         heads and groups of latents are divided among devices, one latent of all heads (MLA) is copied to each of them, and so are parts that \
         there are fewer of than devices. Converted by the coherent method with `--refine {refined}` and `--latent-groups` \
         (GLA) or `--tied` (GTA). d_r and r are those of a group.\n\n\
         | form | d_r, r | {} | {} | parameters |{}\n|{}\n",
        texts[0],
        texts[1],
        DEVICES.map(|devices| format!(" on {devices} |")).concat(),
        " --- |".repeat(5 + DEVICES.len())
    );
    for (form, held) in rows {
        let bytes = |devices: usize| {
            let numbers = held.numbers.get(&devices);
            numbers.map_or_else(String::new, |numbers| (numbers * held.layers * BYTES).to_string())
        };
        let columns: Vec<String> = [
            form.title(),
            form.widths(),
            held.like.four_digits(),
            held.unlike.four_digits(),
            held.parameters.to_string(),
        ]
        .into_iter()
        .chain(DEVICES.map(bytes))
        .collect();
        let _ = writeln!(text, "| {} |", columns.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_have_names_of_their_own() {
        for model in Model::ALL {
            let mut names: Vec<String> = names(model).map(|(name, _)| name).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count);
        }
        assert_eq!(tied(4, 4, 8).name(Model::Stories), "stories/devices/4x4+8/gta-4");
    }

    #[test]
    fn bytes_are_those_of_all_layers() {
        let evaluated = Evaluated {
            perplexity: 5.0,
            mean_nll: 5f64.ln(),
            windows: 1,
        };
        let held = |numbers: [usize; 4]| Held {
            numbers: DEVICES.into_iter().zip(numbers).collect(),
            layers: 5,
            parameters: 99,
            refine: 7,
            like: evaluated,
            unlike: evaluated,
        };
        let measured = BTreeMap::from([
            ("original".to_owned(), held([64, 32, 16, 16])),
            (latents(2, 8, 10).key(), held([36, 18, 18, 18])),
        ]);
        let mut text = String::new();
        section(&mut text, Model::Stories, ["stories", "others"], &measured);
        for line in [
            "| form | d_r, r | stories | others | parameters | on 1 | on 2 | on 4 | on 8 |",
            "| GQA, the original |  | 5.000 | 5.000 | 99 | 640 | 320 | 160 | 160 |",
            "| GLA-2 | 8, 10 | 5.000 | 5.000 | 99 | 360 | 180 | 180 | 180 |",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
    }
}
