//! Generation from a trained model: greedy and sampled, with its ends.

use std::path::Path;

use burn::tensor::Device;
use transmla_core::generate::{BatchGeneration, Finish, Generation, Prompt, Sampler, Sampling};
use transmla_core::{CoreError, Decoder, KvCache, LayeredModel, Residency, StorageDtype};

const PROMPT: [u32; 5] = [1, 403, 407, 261, 378]; // "Once upon a time"

fn stories() -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k");
    Decoder::open(&folder, &Device::flex(), Residency::Loaded).unwrap()
}

fn run(model: &Decoder, generation: Generation<'_>, mut sampler: Sampler) -> (Vec<u32>, Finish) {
    let mut cache = KvCache::new(model.config(), 64);
    let mut ids = Vec::new();
    let mut emit = |id| {
        ids.push(id);
        Ok::<(), CoreError>(())
    };
    let finish = generation
        .run(model, &mut cache, &PROMPT, &mut sampler, &mut emit)
        .unwrap();
    assert_eq!(finish.new_tokens, ids.len());
    (ids, finish)
}

fn written(model: &Decoder, generation: Generation<'_>, sampler: Sampler) -> Vec<u32> {
    run(model, generation, sampler).0
}

#[test]
fn the_likeliest_tokens_are_those_of_the_whole_text() {
    let model = stories();
    let most = |max_new_tokens| Generation {
        max_new_tokens,
        stop_ids: &[],
    };
    let ids = written(&model, most(12), Sampler::greedy());
    assert_eq!(ids.len(), 12);
    // Without a cache, from the logits of all tokens at once.
    let all: Vec<i64> = PROMPT.iter().chain(&ids).map(|id| i64::from(*id)).collect();
    let batch = transmla_core::TokenBatch::from_ids(all.clone(), 1, all.len()).unwrap();
    let logits = model.logits(&batch, None).unwrap();
    let best: Vec<i64> = logits.argmax(2).into_data().iter::<i64>().collect();
    assert_eq!(best[PROMPT.len() - 1..all.len() - 1], all[PROMPT.len()..]);
    assert_eq!(written(&model, most(5), Sampler::new(Sampling::default(), 7)), ids[..5]);
    assert!(written(&model, most(0), Sampler::greedy()).is_empty());
    // The id that ends the text is not handed out.
    let stop_ids = [ids[3]];
    let first = ids.iter().position(|id| *id == ids[3]).unwrap();
    let (stopped, finish) = run(
        &model,
        Generation {
            max_new_tokens: 12,
            stop_ids: &stop_ids,
        },
        Sampler::greedy(),
    );
    assert_eq!(stopped, ids[..first]);
    assert_eq!(finish.stop_id, Some(ids[3]));
}

#[test]
fn a_seed_gives_one_text() {
    let model = stories();
    let sampling = Sampling {
        temperature: 1.0,
        top_p: 0.95,
        ..Sampling::default()
    };
    let text = |seed| {
        let generation = Generation {
            max_new_tokens: 16,
            stop_ids: &[],
        };
        written(&model, generation, Sampler::new(sampling, seed))
    };
    assert_eq!(text(1), text(1));
    assert!((2..6).any(|seed| text(seed) != text(1)));
}

#[test]
fn an_empty_prompt_and_errors_of_the_caller_end_it() {
    let model = stories();
    let generation = Generation {
        max_new_tokens: 9,
        stop_ids: &[],
    };
    let mut cache = KvCache::new(model.config(), 64);
    let empty = generation.run(&model, &mut cache, &[], &mut Sampler::greedy(), &mut |_| {
        Ok::<(), CoreError>(())
    });
    assert!(matches!(empty, Err(CoreError::EmptyPrompt)));
    let mut count = 0;
    let stopped = generation.run(&model, &mut cache, &PROMPT, &mut Sampler::greedy(), &mut |_| {
        count += 1;
        match count {
            3 => Err(CoreError::Execution("enough".into())),
            _ => Ok(()),
        }
    });
    assert!(stopped.unwrap_err().to_string().contains("enough"));
    assert_eq!((count, cache.tokens()), (3, PROMPT.len() + 2));
}

/// Texts side by side are those that are written one by one, whatever their prompts do.
#[test]
fn a_batch_writes_what_each_text_would_be_alone() {
    let model = stories();
    let stop = written(
        &model,
        Generation {
            max_new_tokens: 8,
            stop_ids: &[],
        },
        Sampler::greedy(),
    )[6];
    let generation = BatchGeneration {
        tokens: 40,
        stop_ids: &[stop],
        cache_dtype: StorageDtype::F32,
    };
    let warm = Sampling {
        temperature: 1.0,
        ..Sampling::default()
    };
    let of_each = [(Sampling::default(), 0), (warm, 1), (warm, 2), (Sampling::default(), 3)];
    let start = |index: usize| PROMPT[..2 + index % 3].to_vec();
    let run = |texts: &[usize]| {
        let mut asked = vec![0; texts.len()];
        let mut samplers: Vec<Sampler> = texts
            .iter()
            .map(|text| Sampler::new(of_each[*text].0, of_each[*text].1))
            .collect();
        let mut steps = Vec::new();
        let mut prompt = |index: usize| {
            asked[index] += 1;
            Ok::<_, CoreError>(match asked[index] % 3 {
                0 => Prompt::Further(vec![stop, 261]),
                _ => Prompt::Anew {
                    end: vec![stop],
                    start: start(texts[index]),
                },
            })
        };
        let written = generation
            .run(&model, &mut samplers, &mut prompt, &mut |done| steps.push(done))
            .unwrap();
        assert_eq!(steps, (1..=40).collect::<Vec<_>>());
        (written, asked)
    };
    let (together, asked) = run(&[0, 1, 2, 3]);
    assert!(asked[0] > 2, "{asked:?}");
    for (index, text) in together.iter().enumerate() {
        assert_eq!(text.len(), 40);
        assert_eq!(*text, run(&[index]).0[0], "text {index}");
    }
    // The first text by the other generator: after its prompt up to the id that ends it, then anew.
    let most = Generation {
        max_new_tokens: 30,
        stop_ids: &[stop],
    };
    let mut cache = KvCache::new(model.config(), 64);
    let mut ids = vec![stop];
    ids.extend(start(0));
    let mut emit = |id| {
        ids.push(id);
        Ok::<(), CoreError>(())
    };
    most.run(&model, &mut cache, &start(0), &mut Sampler::greedy(), &mut emit)
        .unwrap();
    let same = ids.len().min(40);
    assert_eq!(together[0][..same], ids[..same]);
}

#[test]
fn a_text_without_a_prompt_is_an_error() {
    let generation = BatchGeneration {
        tokens: 4,
        stop_ids: &[],
        cache_dtype: StorageDtype::F32,
    };
    let mut nothing = |_| Ok::<_, CoreError>(Prompt::Further(Vec::new()));
    let run = generation.run(&stories(), &mut [Sampler::greedy()], &mut nothing, &mut |_| {});
    assert!(matches!(run, Err(CoreError::EmptyPrompt)));
}
