//! Every bound of the engine, with its unit in its name. Nothing is unbounded (DESIGN, rule 10).

/// Most cards of one slab.
pub const SLAB_CARDS_MAX: u32 = 1 << 20;
/// Most bytes of sealed slots in one slab; an import closes a slab that reaches either limit.
pub const SLAB_SEALED_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of labels in one slab; reaching it closes a slab as well.
pub const SLAB_LABELS_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of rows one import holds in memory; above it the largest size class is written out early.
pub const IMPORT_BUFFERED_BYTES_MAX: u64 = 160 << 20;
/// Most cards of a slab that grows.
pub const GROWING_SLAB_CARDS_MAX: u32 = 4096;
/// Most bytes of sealed slots in a slab that grows.
pub const GROWING_SLAB_SEALED_BYTES_MAX: u32 = 4 << 20;
