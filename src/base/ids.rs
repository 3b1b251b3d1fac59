//! Numbers that must not be mixed up, each a type of its own.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// The identity of a server in the cluster; 0 means none.
    NodeId, u64
}
number! {
    /// A Raft term; 0 means none.
    Term, u64
}
number! {
    /// The position of an entry in the Raft log, from 1; 0 means none.
    Index, u64
}
number! {
    /// The number of a page within a database, from 1.
    PageNo, u32
}

/// The two ids whose node bootstraps a cluster of its own when its directory is new.
pub const BOOTSTRAP_IDS: [NodeId; 2] = [NodeId(1), NodeId(0x2dc1_7185_8c31_55be)];

impl Index {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}
