//! Four query heads on two key heads of four dimensions get one rotary key of two dimensions that all heads share.

use transmla_rope::faer::Mat;
use transmla_rope::{FoldSpec, HeadShape, RopeError, rororope};

fn main() -> Result<(), RopeError> {
    let shape = HeadShape::new(4, 2, 4)?;
    // Weights are [out, in]. Where the inputs' second moment is the identity, that of the keys is W Wᵀ.
    let keys = Mat::from_fn(8, 3, |row, column| ((row * 3 + column) as f64).sin());
    let queries = Mat::from_fn(16, 3, |row, column| ((row + 5 * column) as f64).cos());
    let moment = &keys * keys.transpose();

    let decoupling = rororope(moment.as_ref(), shape, &FoldSpec::new(shape, 2, 2)?)?;
    let split = decoupling.split_keys(keys.as_ref())?;
    let rope_queries = decoupling.rope_queries(queries.as_ref())?;

    let kept = (split.rope.norm_l2() / keys.norm_l2()).powi(2);
    println!(
        "keys {:?}: rotary {:?}, without position {:?}",
        keys.shape(),
        split.rope.shape(),
        split.nope.shape()
    );
    println!("queries {:?}: rotary {:?}", queries.shape(), rope_queries.shape());
    println!("the rotary key has {:.1} % of the keys' energy", 100.0 * kept);
    Ok(())
}
