//! See `benches::gpu`.

fn main() -> std::process::ExitCode {
    benches::gpu::main()
}
