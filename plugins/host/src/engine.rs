//! One configuration of the engine, for the child that compiles and the process that runs, and the clock of its deadlines.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// Raised when this file changes what compiled code means in a way that wasmtime's own key doesn't cover.
const REVISION: u32 = 1;

/// How often deadlines are looked at; a call may overrun its deadline by two of these.
pub(crate) const TICK_MS: u64 = 5;
/// Ticks without a call before the clock stops, so that an idle tenant wakes nobody.
const IDLE_TICKS: u32 = 200;

const STACK_BYTES: usize = 512 << 10;
/// Kept resident in a used slot, so that reuse needs neither a system call nor page faults. Measured: less costs speed at
/// batches of 1,000 rows, more gains nothing.
const KEEP_RESIDENT_BYTES: usize = 512 << 10;
const TABLE_ELEMENTS_MAX: usize = 10_000;

/// The part of the configuration that compiled code depends on, beside the constants here.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CodeSettings {
    pub(crate) revision: u32,
}

impl CodeSettings {
    pub(crate) const CURRENT: Self = Self { revision: REVISION };
}

fn code_config() -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(true)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(STACK_BYTES)
        .wasm_backtrace_max_frames(None);
    // A baseline instead of this machine's processor: compiled code is shared by replicas. x86-64-v2 has what SIMD needs.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        config.target("x86_64-unknown-linux-gnu")?;
        // SAFETY of the flags: `Engine::new` refuses to run where the processor lacks one of them.
        for feature in ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"] {
            set_baseline(&mut config, feature);
        }
    }
    Ok(config)
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[expect(unsafe_code, reason = "the setter is unsafe because wrong flags make wrong code; these only widen the baseline")]
fn set_baseline(config: &mut Config, feature: &str) {
    // SAFETY: a processor feature, which is compared with the machine when the code is loaded.
    unsafe { config.cranelift_flag_enable(feature) };
}

/// The engine of the child: no pool, so that it fits a small address space.
pub(crate) fn compiling_engine() -> wasmtime::Result<Engine> {
    Engine::new(&code_config()?)
}

/// The engine of the serving process. It never compiles.
pub(crate) fn serving_engine(concurrent_calls: u32, memory_bytes: usize) -> wasmtime::Result<Engine> {
    let mut config = code_config()?;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(concurrent_calls)
        // A plugin of our SDKs is one core instance; components of other toolchains wire theirs with two more.
        .total_core_instances(concurrent_calls * 4)
        .max_core_instances_per_component(8)
        .total_memories(concurrent_calls)
        .max_memories_per_component(1)
        .max_memories_per_module(1)
        .total_tables(concurrent_calls * 2)
        .max_tables_per_component(4)
        .max_tables_per_module(2)
        .table_elements(TABLE_ELEMENTS_MAX)
        .total_gc_heaps(0)
        .max_memory_size(memory_bytes)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(concurrent_calls)
        .pagemap_scan(Enabled::Auto);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// Names everything that compiled code depends on besides the component: engine version, settings and processor baseline.
pub(crate) fn code_key(engine: &Engine) -> [u8; 32] {
    struct Hasher(Sha256);

    impl std::hash::Hasher for Hasher {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }

    let mut hasher = Hasher(Sha256::new());
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
    hasher.0.update(REVISION.to_le_bytes());
    hasher.0.finalize().into()
}

/// Advances the engine's epoch while calls run.
pub(crate) struct Clock {
    shared: Arc<ClockState>,
    thread: Thread,
}

struct ClockState {
    running: AtomicUsize,
    asleep: AtomicBool,
    ended: AtomicBool,
}

/// Keeps the clock awake for as long as a call runs.
pub(crate) struct Running<'a>(&'a ClockState);

impl Clock {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(ClockState { running: AtomicUsize::new(0), asleep: AtomicBool::new(false), ended: AtomicBool::new(false) });
        let (state, engine) = (Arc::clone(&shared), engine.weak());
        let handle = thread::Builder::new().name("plugin-clock".to_owned()).spawn(move || {
            let mut idle_ticks = 0;
            while !state.ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(TICK_MS));
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                idle_ticks = if state.running.load(Ordering::SeqCst) == 0 { idle_ticks + 1 } else { 0 };
                if idle_ticks >= IDLE_TICKS {
                    state.sleep();
                    idle_ticks = 0;
                }
            }
        })?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    pub(crate) fn enter(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl ClockState {
    /// Either this sees a call that has entered, or that call sees `asleep` and wakes us: both orders are sequential.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.running.load(Ordering::SeqCst) == 0 && !self.ended.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
