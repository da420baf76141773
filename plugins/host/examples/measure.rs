//! Prints the plugin measures: `cargo run --release -p heyuan-plugin-host --example measure -- COMPILER FOLDER`.

use std::{error::Error, path::Path};

use heyuan_plugin_host::{
    CompilerCommand, Host, HostConfig,
    bench::{BenchPlugins, measure},
};

#[expect(clippy::print_stdout, reason = "printing is what this program is for")]
fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(compiler), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("name the compiler and the folder of built plugins".into());
    };
    let cache = tempfile::tempdir()?;
    let host = Host::new(HostConfig::new(cache.path(), [7; 32], CompilerCommand::new(compiler, &[])))?;
    for figure in measure(&host, &BenchPlugins::in_folder(Path::new(&folder)))? {
        println!("{:45} {:>14.2} {:7} {}", figure.name, figure.value, figure.unit, figure.method);
    }
    Ok(())
}
