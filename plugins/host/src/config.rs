//! What a host is told: where compiled code lies, who compiles, and how much a call may use.

use std::{fmt, path::PathBuf};

/// What one call may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fuel of every call. Fuel is the budget that an author sees; its unit holds for one build of the host only.
    pub fuel_base: u64,
    /// Fuel on top for each row of a batch, or each line of an order.
    pub fuel_per_item: u64,
    /// Wall time after which a call is stopped whatever its fuel says.
    pub deadline_ms: u64,
    /// Linear memory of the instance.
    pub memory_bytes: usize,
    /// What the answer may make the host copy.
    pub output_bytes: usize,
    /// What is kept of the lines that a call logs.
    pub log_bytes: usize,
}

impl Limits {
    /// Room for batches of 10,000 rows and some fifty columns; about a thousand instructions a row.
    pub const TAGGER: Self = Self {
        fuel_base: 2_000_000,
        fuel_per_item: 2_000,
        deadline_ms: 500,
        memory_bytes: 32 << 20,
        output_bytes: 4 << 20,
        log_bytes: 8 << 10,
    };

    /// The order of what other shops publish: 11 million instructions for 200 lines, 20 kB out, 1 kB of log.
    pub const BENEFIT_RULE: Self = Self {
        fuel_base: 5_000_000,
        fuel_per_item: 50_000,
        deadline_ms: 200,
        memory_bytes: 16 << 20,
        output_bytes: 64 << 10,
        log_bytes: 4 << 10,
    };
}

/// The child that compiles: a program that ends up in [`crate::compile_worker`].
#[derive(Clone, Debug)]
pub struct CompilerCommand {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Where a [`crate::serve_compiler`] listens, which compiles instead of a child of this process.
    pub socket: Option<PathBuf>,
    /// Wall time of one compilation; longer than its processor time, so that only a machine without time runs into it.
    pub timeout_ms: u64,
    /// Processor time of one compilation, all threads together.
    pub cpu_seconds: u64,
    /// Address space that the child allows itself.
    pub memory_bytes: u64,
    /// Size of the compiled code.
    pub output_bytes: usize,
}

impl CompilerCommand {
    /// With limits that fit a Rust plugin, which takes a second or so: 20 s of processor time within 60 s, 2 GiB of address space,
    /// 64 MiB of code.
    pub fn new(program: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self {
            program: program.into(),
            args: args.iter().map(|&argument| argument.to_owned()).collect(),
            socket: None,
            timeout_ms: 60_000,
            cpu_seconds: 20,
            memory_bytes: 2 << 30,
            output_bytes: 64 << 20,
        }
    }
}

#[derive(Clone)]
pub struct HostConfig {
    pub tagger: Limits,
    pub benefit_rule: Limits,
    /// Size of an uploaded component.
    pub component_bytes: usize,
    /// Calls that run at the same moment; one more is stopped with [`crate::Stop::Busy`]. Each slot keeps at most half a MiB
    /// resident once it was used, and slots are reused before fresh ones are touched.
    pub concurrent_calls: u32,
    pub compiled_cache_dir: PathBuf,
    /// Proves that compiled code is ours. From the tenant's keys; whoever knows it can run native code in this process.
    pub cache_key: [u8; 32],
    pub compiler: CompilerCommand,
}

impl fmt::Debug for HostConfig {
    /// Without the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HostConfig")
            .field("tagger", &self.tagger)
            .field("benefit_rule", &self.benefit_rule)
            .field("component_bytes", &self.component_bytes)
            .field("concurrent_calls", &self.concurrent_calls)
            .field("compiled_cache_dir", &self.compiled_cache_dir)
            .field("compiler", &self.compiler)
            .finish_non_exhaustive()
    }
}

impl HostConfig {
    pub fn new(compiled_cache_dir: impl Into<PathBuf>, cache_key: [u8; 32], compiler: CompilerCommand) -> Self {
        Self {
            tagger: Limits::TAGGER,
            benefit_rule: Limits::BENEFIT_RULE,
            component_bytes: 4 << 20,
            concurrent_calls: 64,
            compiled_cache_dir: compiled_cache_dir.into(),
            cache_key,
            compiler,
        }
    }
}
