//! One call: a fresh store with its limits, and the sorting of what went wrong.

use wasmtime::{PoolConcurrencyLimitError, ResourceLimiter, Store, Trap};

use crate::{
    CallError, Limits, Stop,
    engine::{Clock, Running, TICK_MS},
    worlds,
};

/// A guest's component may have tables only this large.
const TABLE_ELEMENTS_MAX: usize = 10_000;

/// What a store carries during one call.
pub(crate) struct CallState {
    log: String,
    log_bytes_max: usize,
    log_full: bool,
    line_ended: bool,
    /// The last line, kept apart from the log: a panic's message must not drown in what was logged before.
    last_line: String,
    memory_bytes_max: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("memory limit")]
struct MemoryDenied;

impl ResourceLimiter for CallState {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.memory_bytes_max { Err(wasmtime::Error::new(MemoryDenied)) } else { Ok(true) }
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// The last line is cut to this, whatever the log's limit.
const LAST_LINE_BYTES_MAX: usize = 1_024;

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

impl CallState {
    fn put(&mut self, character: char) {
        if self.line_ended {
            self.last_line.clear();
        }
        self.line_ended = character == '\n';
        if !self.line_ended && self.last_line.len() + character.len_utf8() <= LAST_LINE_BYTES_MAX {
            self.last_line.push(character);
        }
        self.log_full |= self.log.len() + character.len_utf8() > self.log_bytes_max;
        if !self.log_full {
            self.log.push(character);
        }
    }
}

impl worlds::tagger::heyuan::plugins::log::Host for CallState {
    fn put(&mut self, character: char) {
        self.put(character);
    }
}

impl worlds::benefit_rule::heyuan::plugins::log::Host for CallState {
    fn put(&mut self, character: char) {
        self.put(character);
    }
}

/// A call that is about to run, or has run.
pub(crate) struct Call<'a> {
    pub(crate) store: Store<CallState>,
    fuel: u64,
    output_bytes: usize,
    _running: Running<'a>,
}

impl<'a> Call<'a> {
    /// `items` are the rows of a batch or the lines of an order.
    pub(crate) fn new(engine: &wasmtime::Engine, clock: &'a Clock, limits: &Limits, items: usize) -> Result<Self, CallError> {
        let running = clock.enter();
        let state = CallState {
            log: String::new(),
            log_bytes_max: limits.log_bytes,
            log_full: false,
            line_ended: false,
            last_line: String::new(),
            memory_bytes_max: limits.memory_bytes,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| state);
        let fuel = limits.fuel_base.saturating_add(limits.fuel_per_item.saturating_mul(items as u64));
        store.set_fuel(fuel).map_err(|error| CallError::Engine(format!("{error:#}")))?;
        // The clock may be about to tick, so one tick more than the deadline holds.
        store.set_epoch_deadline(limits.deadline_ms.div_ceil(TICK_MS) + 1);
        store.set_hostcall_fuel(limits.output_bytes);
        Ok(Self { store, fuel, output_bytes: limits.output_bytes, _running: running })
    }

    pub(crate) fn fuel_used(&self) -> u64 {
        self.fuel.saturating_sub(self.store.get_fuel().unwrap_or(0))
    }

    pub(crate) fn log(&mut self) -> String {
        std::mem::take(&mut self.store.data_mut().log)
    }

    /// Says what an error of the engine means for the caller.
    pub(crate) fn failed(&mut self, error: &wasmtime::Error) -> CallError {
        let log = self.log();
        let stopped = |stop| CallError::Stopped { stop, log: log.clone() };
        if error.downcast_ref::<MemoryDenied>().is_some() {
            return stopped(Stop::Memory);
        }
        if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
            return stopped(Stop::Busy);
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => stopped(Stop::Fuel),
            Some(Trap::Interrupt) => stopped(Stop::Deadline),
            Some(Trap::StackOverflow) => stopped(Stop::Stack),
            Some(trap) => {
                let last_line = std::mem::take(&mut self.store.data_mut().last_line);
                let message = if last_line.is_empty() { trap.to_string() } else { last_line };
                CallError::Trapped { message, log }
            }
            None if is_output_limit(error) => CallError::OutputTooLarge { max: self.output_bytes, log },
            // What is left are answers that break the component model's rules, such as a string that is no UTF-8.
            None => CallError::InvalidAnswer { message: format!("{error:#}"), log },
        }
    }

    pub(crate) fn refused(&mut self, message: impl Into<String>) -> CallError {
        CallError::InvalidAnswer { message: message.into(), log: self.log() }
    }

    pub(crate) fn guest_error(&mut self, message: &str) -> CallError {
        CallError::Guest { message: cut(message, LAST_LINE_BYTES_MAX).to_owned(), log: self.log() }
    }
}

/// The engine has no type for this error; a test holds the words in place.
fn is_output_limit(error: &wasmtime::Error) -> bool {
    format!("{error:#}").contains("fuel allocated for hostcalls has been exhausted")
}
