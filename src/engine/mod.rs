//! (see docs/design.md)
