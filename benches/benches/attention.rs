//! See `benches::catalogue`, `Bench::Attention`.

fn main() {
    benches::harness::main(benches::catalogue::Bench::Attention);
}
