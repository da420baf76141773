//! Measures Heyuan against its bars, prints a table and writes it as JSON.
//!
//! An area is a module that adds rows to the [`Report`]; each row says by which method its figure came about. Durability settings are
//! production's, and the disk's own speed is measured in every run, since no figure of a durable write means anything without it.

mod books;
mod collect;
mod connection;
mod disk;
mod group;
mod http_load;
mod identity;
mod inside;
mod ledger;
mod operator;
mod plugins;
mod report;
mod run;
mod tenant;
mod units;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::report::Report;
use crate::run::Size;

/// The areas in the order in which they run, with what they measure; the disk always runs, and first.
const AREAS: &[(&str, &str)] = &[
    ("disk", "fdatasync p50 and p99, which every durable figure is read beside; measured in every run"),
    ("tenant", "start to ready and memory of an empty tenant"),
    ("plugins", "instantiate, empty call, tagger batches beside native, benefit decision, two threads, memory of 50"),
    ("ledger", "single transfers, one a commit and coalesced, and batches on hot accounts, on both databases"),
    ("books", "a book of 10 M entries and a month of 1 M transactions: fill, seal, close, where its time goes, verify, on both databases"),
    (
        "group",
        "the demo group: load, profile reads, transaction to points, where its time goes, quote, start, idle memory, idle connections",
    ),
    ("identity", "who is who on the demo truth, beside plain union-find"),
    ("operator", "apply to migration job and to Ready, 1,000 tenants: converge, memory, requests of a look at all"),
    ("collect", "durable acknowledgement alone, with every room, one event a request, on both databases"),
];

const HELP: &str = "\
heyuan-bench: measure Heyuan against its bars, print a table and write it as JSON

usage: heyuan-bench [--quick] [--out FILE.json] [NAME...]

  NAME         areas to measure; all when none is named
  --list       print the areas and what they measure
  --quick      small sizes and short runs, to try the bench itself; the method column states them
  --out FILE   where the JSON goes; bench.json in the cache folder when left out
  --help       print this

A row has name, value, unit, baseline, ratio, bar, met and method. A bar that is missed says `no` and is no failure of the command; a
row that could not be measured says why.";

struct Options {
    size: Size,
    out: PathBuf,
    areas: Vec<String>,
}

/// What the command line asks for, or what to print instead.
fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, (ExitCode, String)> {
    let mut options = Options { size: Size::Full, out: heyuan_harness::cache_dir().join("bench.json"), areas: Vec::new() };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Err((ExitCode::SUCCESS, HELP.to_owned())),
            "--list" => {
                let lines: Vec<String> = AREAS.iter().map(|(name, what)| format!("{name:<8} {what}")).collect();
                return Err((ExitCode::SUCCESS, lines.join("\n")));
            }
            "--quick" => options.size = Size::Quick,
            "--out" => options.out = arguments.next().ok_or((ExitCode::FAILURE, "--out needs a file".to_owned()))?.into(),
            name if AREAS.iter().any(|(area, _)| *area == name) => options.areas.push(argument),
            unknown => return Err((ExitCode::FAILURE, format!("there is no area or option {unknown}; see heyuan-bench --help"))),
        }
    }
    Ok(options)
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "what a command answers goes to standard output")]
async fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err((code, words)) => {
            println!("{words}");
            return code;
        }
    };
    let mut report = Report::default();
    for (area, _) in AREAS {
        if *area != "disk" && !options.areas.is_empty() && !options.areas.iter().any(|name| name == area) {
            continue;
        }
        eprintln!("measuring {area}");
        match *area {
            "disk" => disk::measure(&mut report),
            "tenant" => tenant::measure(&mut report, options.size).await,
            "plugins" => plugins::measure(&mut report),
            "ledger" => ledger::measure(&mut report, options.size).await,
            "books" => books::measure(&mut report, options.size).await,
            "group" => group::measure(&mut report, options.size).await,
            "identity" => identity::rows().await.into_iter().for_each(|row| report.add(row)),
            "operator" => operator::measure(&mut report, options.size).await,
            "collect" => collect::measure(&mut report, options.size).await,
            _ => unreachable!("every area has its arm"),
        }
    }
    match report.print().and_then(|()| report.write(&options.out)) {
        Ok(()) => {
            eprintln!("written to {}", options.out.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the report could not be written to {}: {error}", options.out.display());
            ExitCode::FAILURE
        }
    }
}

/// A whole number from the environment, or what a full run wants.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text}")),
        Err(_) => default,
    }
}
