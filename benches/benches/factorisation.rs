//! See `benches::catalogue`, `Bench::Factorisation`.

fn main() {
    benches::harness::main(benches::catalogue::Bench::Factorisation);
}
