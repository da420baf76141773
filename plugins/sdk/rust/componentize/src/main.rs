//! Makes a component of a plugin's core module: `heyuan-componentize MODULE.wasm COMPONENT.wasm`.

use std::{env, error::Error, fs, path::PathBuf, process::ExitCode};

use wit_component::ComponentEncoder;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [module, component] = arguments.as_slice() else {
        eprintln!("usage: heyuan-componentize MODULE.wasm COMPONENT.wasm");
        return ExitCode::from(2);
    };
    match componentize(module, component) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("make a component of {}: {error}", module.display());
            ExitCode::FAILURE
        }
    }
}

fn componentize(module: &PathBuf, component: &PathBuf) -> Result<(), Box<dyn Error>> {
    let module = fs::read(module)?;
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("{error:#}"))?;
    // Written beside and renamed, so that nobody ever reads half a component.
    let unfinished = component.with_extension("unfinished");
    fs::write(&unfinished, encoded)?;
    fs::rename(&unfinished, component)?;
    Ok(())
}
