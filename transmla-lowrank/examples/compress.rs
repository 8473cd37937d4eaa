//! The keys and values of two heads, nearly in one direction each, from 8 rows to a latent of 3.

use transmla_lowrank::faer::Mat;
use transmla_lowrank::{JointPca, KvInput, LowRankError, joint_pca};

fn main() -> Result<(), LowRankError> {
    // Weights are [out, in]; the inputs' second moment is the identity here.
    let keys = Mat::from_fn(4, 6, |i, j| (i + 1) as f64 + 1e-3 * ((i * 6 + j) as f64).sin());
    let values = Mat::from_fn(4, 6, |i, j| ((i % 2) * j) as f64 + 1e-3 * ((i + j) as f64).cos());
    let moment = Mat::<f64>::identity(6, 6);
    // Each head takes two of the four key rows.
    let head = |first: usize| Mat::from_fn(2, 4, |i, j| if first + i == j { 1.0 } else { 0.0 });
    let key_up = [head(0), head(2)];
    let input = KvInput {
        nope_keys: keys.as_ref(),
        values: values.as_ref(),
        key_up: &key_up,
        value_head_dim: 2,
    };

    let spec = JointPca {
        rank: 3,
        balance: 1.0,
        skipped_values: 0,
        damping: 0.01,
    };
    let factors = joint_pca(&input, moment.as_ref(), &spec)?;

    let error = &factors.key_up[1] * &factors.down - keys.subrows(2, 2);
    println!(
        "kv_a_proj {:?}, kv_b_proj {:?}",
        factors.down.shape(),
        factors.kv_b().shape()
    );
    println!("{:.4} % of the energy kept", 100.0 * factors.kept_energy);
    println!("largest error of the second head's keys {:.4}", error.norm_max());
    Ok(())
}
