//! Large files that were deleted: a thread closes them, one after the other, and ends. What they occupy is freed then,
//! which for a gigabyte takes as long as a hundred syncs, and whoever deletes holds up the log.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::threads;

/// Those of the whole process that wait; `None`: no thread sees to them.
static WAITING: Mutex<Option<VecDeque<File>>> = Mutex::new(None);

fn waiting() -> MutexGuard<'static, Option<VecDeque<File>>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the file closed, by another thread if there is room for one.
pub fn close_aside(file: File) {
    let mut waiting = waiting();
    if let Some(files) = &mut *waiting {
        files.push_back(file);
        return;
    }
    *waiting = Some(VecDeque::from([file]));
    drop(waiting);
    if let Err(error) = threads::start("dqlite-delete", close_all) {
        log::debug!("no thread to close deleted files: {error}");
        close_all();
    }
}

fn close_all() {
    while let Some(file) = next() {
        drop(file);
    }
}

fn next() -> Option<File> {
    let mut waiting = waiting();
    let file = waiting.as_mut().and_then(VecDeque::pop_front);
    if file.is_none() {
        *waiting = None;
    }
    file
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::close_aside;

    #[test]
    fn whatever_comes_is_closed_also_when_the_thread_has_ended_once() {
        for _ in 0..20 {
            let pipes: Vec<_> = (0..3).map(|_| std::io::pipe().unwrap()).collect();
            let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
            writers.into_iter().for_each(|writer| close_aside(File::from(OwnedFd::from(writer))));
            for mut reader in readers {
                assert_eq!(reader.read(&mut [0]).unwrap(), 0, "nobody writes any more");
            }
        }
    }
}
