//! Page buffers that wait to be used again, for the whole process.
//!
//! A page is made by the thread that runs a statement and freed by the one that drops the last version or log
//! entry with it. The system's allocator gives it back to the thread that made it, which may make no more for
//! long: with a dozen threads taking turns, three times the memory in use was kept. Here each page goes to
//! whoever needs the next one.
//!
//! Pages of zeros are one and the same buffer: a SQLite that was built to erase what is deleted makes them of all
//! pages of a table that is dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::limits::FREE_PAGES_MAX;

/// Pages of other sizes are rare, and left to the system.
const BUFFER_BYTES: usize = 4096;

static FREE: Mutex<Vec<Arc<[u8]>>> = Mutex::new(Vec::new());

/// Bytes of buffers that went back to the allocator since somebody asked.
static FREED: AtomicUsize = AtomicUsize::new(0);

static ZEROS: LazyLock<Arc<[u8]>> = LazyLock::new(|| Arc::from([0; BUFFER_BYTES].as_slice()));

fn free() -> MutexGuard<'static, Vec<Arc<[u8]>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer that holds a copy of `bytes`.
#[must_use]
pub fn copy_of(bytes: &[u8]) -> Arc<[u8]> {
    if bytes.len() == BUFFER_BYTES {
        if is_zero(bytes) {
            return Arc::clone(&ZEROS);
        }
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

/// A page in use has something in its first bytes nearly always.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Drops a reference to a buffer, which is kept if it was the last one.
pub fn give_back(buffer: &mut Arc<[u8]>) {
    if buffer.len() != BUFFER_BYTES || Arc::get_mut(buffer).is_none() {
        return;
    }
    let mut free = free();
    if free.len() < FREE_PAGES_MAX {
        free.push(std::mem::take(buffer));
    } else {
        FREED.fetch_add(BUFFER_BYTES, Ordering::Relaxed);
    }
}

/// How many bytes of buffers found no place here and went back to the allocator, since [`empty`] was called.
#[must_use]
pub fn freed() -> usize {
    FREED.load(Ordering::Relaxed)
}

/// Gives the allocator all that wait here too, and counts from zero again.
pub fn empty() {
    let waiting = std::mem::take(&mut *free());
    FREED.store(0, Ordering::Relaxed);
    drop(waiting);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{BUFFER_BYTES, copy_of, free, freed, give_back};
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
        assert!(freed() > 0, "what found no place is counted");
        let again = copy_of(&[3; BUFFER_BYTES]);
        assert!(again.iter().all(|byte| *byte == 3));
        let (mut zeros, others) = (copy_of(&[0; BUFFER_BYTES]), copy_of(&[0; BUFFER_BYTES]));
        assert!(Arc::ptr_eq(&zeros, &others), "zeros are held once");
        give_back(&mut zeros);
        let mut last = [0; BUFFER_BYTES];
        last[BUFFER_BYTES - 1] = 1;
        assert_eq!((&*copy_of(&last), &*others), (last.as_slice(), [0; BUFFER_BYTES].as_slice()));
        let mut small = copy_of(&[4; 512]);
        give_back(&mut small);
        assert_eq!(&*small, [4; 512]);
    }
}
