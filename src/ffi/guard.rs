//! What stands between C and everything else: no panic passes, strings become slices, signals stay outside.
#![expect(unsafe_code, reason = "reads strings that C lends, and blocks signals around the start of threads")]

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// Runs the body of an exported function; where it panics, the function answers `otherwise`.
///
/// A panic that reached C would end the whole program, a Go program with all its own state, say. What the body
/// left half done is behind mutexes that it poisoned and whose owner decides.
pub fn guarded<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        log::error!("internal error: a call of the C API panicked");
        otherwise
    })
}

/// The bytes of a C string, without its NUL; `None` for a null pointer.
///
/// # Safety
/// `text` is null, or points to a string that ends with a NUL and does not change while the result is in use.
pub unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller promises the rest.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Runs `body` with all signals blocked, so that the threads it starts inherit that: the host's signals are for
/// the host's threads, and a Go program crashes when a handler runs on a thread without the stack it set up.
pub fn with_signals_blocked<R>(body: impl FnOnce() -> R) -> R {
    /// Gives the caller's mask back, also when `body` panics.
    struct Restore(Option<libc::sigset_t>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(mask) = &self.0 {
                // SAFETY: a mask that the system filled in; the old one is not asked for.
                unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
            }
        }
    }
    let mut all = MaybeUninit::uninit();
    let mut old = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises `all`, which pthread_sigmask then reads; on success (0) that has filled in `old`.
    let restore = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        let blocked = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr()) == 0;
        Restore(blocked.then(|| old.assume_init()))
    };
    let result = body();
    drop(restore);
    result
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::*;

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(guarded(1, || 0), 0);
        // `resume_unwind` panics without the message on stderr.
        assert_eq!(guarded(1, || resume_unwind(Box::new("deliberate"))), 1);
    }

    #[test]
    fn null_is_no_string() {
        // SAFETY: null, and a literal with a NUL.
        let (none, some) = unsafe { (bytes(ptr::null()), bytes(c"a b".as_ptr())) };
        assert_eq!((none, some), (None, Some(b"a b".as_slice())));
    }

    fn blocks_sigterm() -> bool {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: without a new mask the call only fills in the old one, which sigismember reads.
        unsafe {
            assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), mask.as_mut_ptr()), 0);
            libc::sigismember(mask.as_ptr(), libc::SIGTERM) == 1
        }
    }

    #[test]
    fn threads_started_inside_block_all_signals_and_the_caller_has_its_mask_back() {
        assert!(!blocks_sigterm());
        let inside = with_signals_blocked(|| std::thread::scope(|scope| scope.spawn(blocks_sigterm).join()));
        assert!(inside.unwrap());
        assert!(!blocks_sigterm());
    }
}
