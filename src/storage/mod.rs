//! The order of disk operations in the data directory. Formats are `format`'s, syscalls are `disk`'s.
