//! See `benches::catalogue`, `Bench::Matrices`.

fn main() {
    benches::harness::main(benches::catalogue::Bench::Matrices);
}
