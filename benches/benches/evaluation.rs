//! See `benches::catalogue`, `Bench::Evaluation`.

fn main() {
    benches::harness::main(benches::catalogue::Bench::Evaluation);
}
