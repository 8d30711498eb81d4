//! The one binary; everything is in `cli`.
fn main() -> std::process::ExitCode {
    ehpc_store::cli::main()
}
