//! What every plugin carries inside: memory that is cheap for a life of one call, and a last word when it panics.

#[cfg(target_arch = "wasm32")]
mod arena;

use std::panic;

/// Sends the message of a panic through `write` before the instance traps; without it the host could only say "unreachable".
pub fn report_panics(write: fn(&str)) {
    panic::set_hook(Box::new(move |info| write(&info.to_string())));
}
