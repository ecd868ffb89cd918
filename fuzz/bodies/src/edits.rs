//! Changes to bytes that are in order, so that a fuzzer gets past the checks of form and reaches those of meaning.

/// Exclusive-ors bytes of `image`: each three bytes of `edits` are an offset (u16, modulo the length) and a mask.
/// Returns how many bytes are other than before.
pub(crate) fn apply(image: &mut [u8], edits: &[u8]) -> usize {
    let before = image.to_vec();
    for edit in edits.chunks_exact(3) {
        let offset = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % image.len();
        image[offset] ^= edit[2];
    }
    before
        .iter()
        .zip(image)
        .filter(|(old, new)| old != new)
        .count()
}
