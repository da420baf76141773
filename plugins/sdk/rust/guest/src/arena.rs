//! The allocator of a plugin: an instance lives for one call, so memory is cut from the front and freed blocks wait in lists.
//!
//! The default allocator asks the host for more memory at its first use, which is two system calls of the host a call. This one
//! starts with what the module declared. Sizes are rounded to classes (multiples of 16 up to 128, then four classes a
//! doubling), so that a freed block fits the next of its kind; growing the newest block is free.

use std::{
    alloc::{GlobalAlloc, Layout},
    arch::wasm32,
    cell::UnsafeCell,
    ptr,
};

const ALIGN: usize = 16;
const PAGE: usize = 65_536;
const GROW_PAGES_MIN: usize = 16;
const CLASSES: usize = 128;

unsafe extern "C" {
    /// Where the linker says that the heap starts.
    static __heap_base: u8;
}

struct State {
    /// The next free byte; 0 before the first use.
    next: usize,
    end: usize,
    /// From here on memory was never handed out and is still zero.
    clean: usize,
    /// The newest freed block of each class; its first word names the one before.
    freed: [usize; CLASSES],
}

struct Arena(UnsafeCell<State>);

// SAFETY: the target has no threads; the host refuses modules with shared memory.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena = Arena(UnsafeCell::new(State { next: 0, end: 0, clean: 0, freed: [0; CLASSES] }));

/// The size of the class that holds `size`, and its number.
const fn class(size: usize) -> (usize, usize) {
    if size <= 128 {
        let steps = if size == 0 { 1 } else { size.div_ceil(ALIGN) };
        return (steps * ALIGN, steps - 1);
    }
    let doubling = (size - 1).ilog2() as usize;
    let step = 1 << (doubling - 2);
    let steps = (size - (1 << doubling)).div_ceil(step);
    ((1 << doubling) + steps * step, 8 + (doubling - 7) * 4 + steps - 1)
}

impl State {
    fn cut(&mut self, size: usize, align: usize) -> usize {
        if self.next == 0 {
            let base = &raw const __heap_base as usize;
            self.next = base.next_multiple_of(ALIGN);
            self.clean = self.next;
            self.end = wasm32::memory_size(0) * PAGE;
        }
        let start = self.next.next_multiple_of(align);
        let Some(next) = start.checked_add(size) else { return 0 };
        if next > self.end && !self.grow(next) {
            return 0;
        }
        self.next = next;
        start
    }

    fn grow(&mut self, next: usize) -> bool {
        let pages = (next - self.end).div_ceil(PAGE).max(GROW_PAGES_MIN);
        if wasm32::memory_grow(0, pages) == usize::MAX {
            return false;
        }
        self.end += pages * PAGE;
        true
    }

    /// The block's address and whether it is known to be zero; address 0 when there is no more memory.
    fn take(&mut self, layout: Layout) -> (usize, bool) {
        let (size, number) = class(layout.size());
        if layout.align() <= ALIGN && self.freed[number] != 0 {
            let block = self.freed[number];
            // SAFETY: a block in the list is ours, at least 16 bytes long, and starts with the address of the one before.
            self.freed[number] = unsafe { *(block as *const usize) };
            return (block, false);
        }
        let block = self.cut(size, layout.align().max(ALIGN));
        let zero = block >= self.clean;
        self.clean = self.clean.max(self.next);
        (block, zero)
    }

    fn give_back(&mut self, block: usize, layout: Layout) {
        let (size, number) = class(layout.size());
        if block + size == self.next {
            self.next = block;
        } else {
            // SAFETY: the block is at least 16 bytes long and its owner has let it go.
            unsafe { *(block as *mut usize) = self.freed[number] };
            self.freed[number] = block;
        }
    }
}

// SAFETY: blocks never overlap, are aligned to 16 or to what was asked, and live until they are given back.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: there is one thread, and nothing here calls back into the allocator.
        unsafe { &mut *self.0.get() }.take(layout).0 as *mut u8
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let (block, zero) = unsafe { &mut *self.0.get() }.take(layout);
        if block != 0 && !zero {
            // SAFETY: the block is at least this long.
            unsafe { ptr::write_bytes(block as *mut u8, 0, layout.size()) };
        }
        block as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { &mut *self.0.get() }.give_back(block as usize, layout);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (old, old_number) = class(layout.size());
        let (new, new_number) = class(size);
        if old_number == new_number {
            return block;
        }
        // SAFETY: as in `alloc`.
        let state = unsafe { &mut *self.0.get() };
        if block as usize + old == state.next && new > old {
            if state.cut(new - old, 1) == 0 {
                return ptr::null_mut();
            }
            state.clean = state.clean.max(state.next);
            return block;
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return ptr::null_mut() };
        let moved = state.take(wanted).0 as *mut u8;
        if !moved.is_null() {
            // SAFETY: both blocks hold the smaller of the two sizes and don't overlap.
            unsafe { ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
            state.give_back(block as usize, layout);
        }
        moved
    }
}
