//! Page buffers that wait to be used again, for the whole process.
//!
//! A page is made by the thread that runs a statement and freed by the one that drops the last version or log
//! entry with it. The system's allocator gives it back to the thread that made it, which may make no more for
//! long: with a dozen threads taking turns, three times the memory in use was kept. Here each page goes to
//! whoever needs the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::limits::FREE_PAGES_MAX;

/// Pages of other sizes are rare, and left to the system.
const BUFFER_BYTES: usize = 4096;

static FREE: Mutex<Vec<Arc<[u8]>>> = Mutex::new(Vec::new());

fn free() -> MutexGuard<'static, Vec<Arc<[u8]>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer that holds a copy of `bytes`.
#[must_use]
pub fn copy_of(bytes: &[u8]) -> Arc<[u8]> {
    if bytes.len() == BUFFER_BYTES {
        let waiting = free().pop();
        if let Some(mut buffer) = waiting
            && let Some(place) = Arc::get_mut(&mut buffer)
        {
            place.copy_from_slice(bytes);
            return buffer;
        }
    }
    Arc::from(bytes)
}

/// Drops a reference to a buffer, which is kept if it was the last one.
pub fn give_back(buffer: &mut Arc<[u8]>) {
    if buffer.len() != BUFFER_BYTES || Arc::get_mut(buffer).is_none() {
        return;
    }
    let mut free = free();
    if free.len() < FREE_PAGES_MAX {
        free.push(std::mem::take(buffer));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{BUFFER_BYTES, copy_of, free, give_back};
    use crate::base::limits::FREE_PAGES_MAX;

    #[test]
    fn only_a_buffer_that_nobody_else_has_is_used_again_and_no_more_than_so_many_wait() {
        let mut first = copy_of(&[1; BUFFER_BYTES]);
        let second = Arc::clone(&first);
        give_back(&mut first);
        assert_eq!((first.len(), second[0]), (BUFFER_BYTES, 1), "it is in use");
        drop(second);
        let weak = Arc::downgrade(&first);
        give_back(&mut first);
        assert_eq!(first.len(), BUFFER_BYTES, "somebody watches it");
        drop(weak);
        give_back(&mut first);
        assert_eq!(first.len(), 0);
        for _ in 0..FREE_PAGES_MAX + 10 {
            give_back(&mut Arc::from([2; BUFFER_BYTES].as_slice()));
        }
        assert!(free().len() <= FREE_PAGES_MAX);
        let again = copy_of(&[3; BUFFER_BYTES]);
        assert!(again.iter().all(|byte| *byte == 3));
        let mut small = copy_of(&[4; 512]);
        give_back(&mut small);
        assert_eq!(&*small, [4; 512]);
    }
}
