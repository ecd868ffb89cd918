//! Slabs: immutable, memory-mapped files of sealed cards.
