//! The program of the tests' guests, linked statically: `ehpc-guest work ...` and `ehpc-guest lock`.

mod lock;
mod work;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["work", mount, model, seed] => work::run(mount.as_ref(), model.as_ref(), seed),
        ["lock"] => lock::run(),
        _ => Err("usage: ehpc-guest work MOUNTED-DIR MODEL-DIR SEED | ehpc-guest lock".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("ERROR {error}");
            ExitCode::FAILURE
        }
    }
}
