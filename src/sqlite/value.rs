//! Values as SQLite stores them.

/// A value that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Float(f64),
    /// A text; its bytes are not checked.
    Text(Vec<u8>),
    /// A blob.
    Blob(Vec<u8>),
    /// NULL.
    Null,
}

/// A value that borrows its bytes: from a statement's row, or from what is to be bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Float(f64),
    /// A text; its bytes are not checked, and may hold NULs.
    Text(&'a [u8]),
    /// A blob.
    Blob(&'a [u8]),
    /// NULL.
    Null,
}

impl Value {
    /// The same value, borrowed.
    #[must_use]
    pub fn view(&self) -> ValueRef<'_> {
        match self {
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(blob) => ValueRef::Blob(blob),
            Self::Null => ValueRef::Null,
        }
    }
}

impl ValueRef<'_> {
    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            Self::Integer(value) => Value::Integer(value),
            Self::Float(value) => Value::Float(value),
            Self::Text(text) => Value::Text(text.to_vec()),
            Self::Blob(blob) => Value::Blob(blob.to_vec()),
            Self::Null => Value::Null,
        }
    }
}
