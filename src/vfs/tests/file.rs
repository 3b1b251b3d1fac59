//! A file opened through the VFS, as SQLite's pager holds one.
#![expect(unsafe_code, reason = "calls the C methods of a file")]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::harness::PAGE_SIZE;
use crate::pages::{Database, View, WriterId, page1};
use crate::vfs::{Control, VFS_NAME, register, with_binding};

pub const P: i64 = PAGE_SIZE as i64;
pub const SIZE: usize = PAGE_SIZE as usize;

pub fn vfs() -> *mut ffi::sqlite3_vfs {
    register().unwrap();
    // SAFETY: the name is a C string.
    let vfs = unsafe { ffi::sqlite3_vfs_find(VFS_NAME.as_ptr()) };
    assert!(!vfs.is_null());
    vfs
}

/// A file opened through the VFS, with its memory.
pub struct File {
    memory: Vec<u64>,
    pub control: Arc<Control>,
}

impl File {
    pub fn main(db: &Arc<Database>, who: u64) -> Self {
        let control = Control::new(Arc::clone(db), WriterId(who));
        control.set_view(View::Head);
        with_binding(Arc::clone(&control), |_, _| Self::open(&control, ffi::SQLITE_OPEN_MAIN_DB)).unwrap()
    }

    pub fn open(control: &Arc<Control>, flags: c_int) -> Result<Self, c_int> {
        let vfs = vfs();
        // SAFETY: the VFS is registered forever; the memory has the size that it asks for.
        unsafe {
            let words = usize::try_from((*vfs).szOsFile).unwrap().div_ceil(8);
            let mut file = Self { memory: vec![u64::MAX; words], control: Arc::clone(control) };
            let mut out_flags = 0;
            let code = (*vfs).xOpen.unwrap()(vfs, c"x".as_ptr(), file.raw(), flags, &mut out_flags);
            if code != 0 {
                assert!((*file.raw()).pMethods.is_null(), "SQLite would close it");
                file.memory.clear();
                return Err(code);
            }
            assert_eq!(out_flags, flags);
            Ok(file)
        }
    }

    pub fn raw(&mut self) -> *mut ffi::sqlite3_file {
        self.memory.as_mut_ptr().cast()
    }

    pub fn methods(&mut self) -> &'static ffi::sqlite3_io_methods {
        // SAFETY: the file is open; its methods are static.
        unsafe { &*(*self.raw()).pMethods }
    }

    pub fn read(&mut self, offset: i64, len: usize) -> (c_int, Vec<u8>) {
        let mut out = vec![0xee; len];
        let amount = c_int::try_from(len).unwrap();
        let method = self.methods().xRead.unwrap();
        // SAFETY: the file is open, the buffer is as long as said.
        let code = unsafe { method(self.raw(), out.as_mut_ptr().cast(), amount, offset) };
        (code, out)
    }

    pub fn write(&mut self, offset: i64, bytes: &[u8]) -> c_int {
        let method = self.methods().xWrite.unwrap();
        let amount = c_int::try_from(bytes.len()).unwrap();
        // SAFETY: the file is open, the bytes are as long as said.
        unsafe { method(self.raw(), bytes.as_ptr().cast(), amount, offset) }
    }

    pub fn lock(&mut self, level: c_int) -> c_int {
        let method = self.methods().xLock.unwrap();
        // SAFETY: the file is open.
        unsafe { method(self.raw(), level) }
    }

    pub fn unlock(&mut self, level: c_int) -> c_int {
        let method = self.methods().xUnlock.unwrap();
        // SAFETY: the file is open.
        unsafe { method(self.raw(), level) }
    }

    pub fn truncate(&mut self, size: i64) -> c_int {
        let method = self.methods().xTruncate.unwrap();
        // SAFETY: the file is open.
        unsafe { method(self.raw(), size) }
    }

    pub fn pages(&mut self) -> i64 {
        let (method, mut size) = (self.methods().xFileSize.unwrap(), -1);
        // SAFETY: the file is open, the place is ours.
        assert_eq!(unsafe { method(self.raw(), &mut size) }, 0);
        assert_eq!(size % P, 0);
        size / P
    }

    pub fn control<T>(&mut self, op: c_int, argument: *mut T) -> c_int {
        let method = self.methods().xFileControl.unwrap();
        // SAFETY: the file is open; each operation gets the argument that it is defined with.
        unsafe { method(self.raw(), op, argument.cast()) }
    }

    pub fn sync(&mut self) -> c_int {
        self.control::<c_void>(ffi::SQLITE_FCNTL_SYNC, null_mut())
    }

    pub fn commit(&mut self) -> c_int {
        self.control::<c_void>(ffi::SQLITE_FCNTL_COMMIT_PHASETWO, null_mut())
    }

    pub fn fetch(&mut self, offset: i64, len: c_int) -> Option<&[u8]> {
        let (method, mut out) = (self.methods().xFetch.unwrap(), null_mut());
        // SAFETY: the file is open, the place is ours; what is lent lives while the file is borrowed.
        unsafe {
            assert_eq!(method(self.raw(), offset, len, &mut out), 0);
            (!out.is_null()).then(|| std::slice::from_raw_parts(out.cast(), usize::try_from(len).unwrap()))
        }
    }

    pub fn unfetch(&mut self, page: *mut c_void) {
        let method = self.methods().xUnfetch.unwrap();
        // SAFETY: the file is open.
        assert_eq!(unsafe { method(self.raw(), 0, page) }, 0);
    }

    /// Begins to write, as a transaction does.
    pub fn begin(&mut self) {
        assert_eq!((self.lock(ffi::SQLITE_LOCK_SHARED), self.lock(ffi::SQLITE_LOCK_RESERVED)), (0, 0));
    }

    /// Writes whole pages with these bytes and commits.
    pub fn transaction(&mut self, pages: &[(i64, u8)]) {
        self.begin();
        let (_, mut first) = self.read(0, SIZE);
        let counter = page1::counter(&first) + 1;
        first[24..28].copy_from_slice(&counter.to_be_bytes());
        assert_eq!(self.lock(ffi::SQLITE_LOCK_EXCLUSIVE), 0);
        assert_eq!(self.write(0, &first), 0);
        for (no, byte) in pages {
            assert_eq!(self.write((no - 1) * P, &[*byte; SIZE]), 0);
        }
        assert_eq!((self.sync(), self.commit(), self.unlock(0)), (0, 0, 0));
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            let method = self.methods().xClose.unwrap();
            // SAFETY: the file is open; a second close finds nothing.
            unsafe { assert_eq!((method(self.raw()), method(self.raw())), (0, 0)) };
        }
    }
}
