//! The mask over a client's payload.

/// Masks or unmasks `bytes` in place, and returns the mask turned so that it continues where
/// these bytes end: a frame that arrives in pieces is unmasked piece by piece.
pub(super) fn apply(mask: [u8; 4], bytes: &mut [u8]) -> [u8; 4] {
    // RFC 6455 5.3: octet i is combined with mask octet i mod 4. An unmasked frame counts as one
    // masked with zeros, which change nothing.
    if mask == [0; 4] {
        return mask;
    }
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let phase = bytes.len() % 4;
    // Eight bytes at a time, which the compiler widens to what the processor has.
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    match phase {
        0 => [a, b, c, d],
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    }
}
