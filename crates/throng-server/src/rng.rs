//! The generator of ids and jitter.

use uuid::Uuid;

/// xoshiro256++: fast, seeded once per shard from the system's randomness, never used for keys.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        // SplitMix64 spreads the seed over the state, which must not be all zero.
        let mut z = seed;
        let state = std::array::from_fn(|_| {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        });
        Self { state }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u32) -> u32 {
        // The high half of the product is unbiased enough for jitter.
        ((u64::from(end) * (self.next_u64() >> 32)) >> 32) as u32
    }

    /// A version 4 UUID.
    pub fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_u128(u128::from(self.next_u64()) << 64 | u128::from(self.next_u64()))
            .with_version(uuid::Version::Random)
            .with_variant(uuid::Variant::RFC4122)
            .into_uuid()
    }
}

/// A version 4 UUID that nobody can guess, from the system's generator: whoever knows it may speak for
/// its owner.
///
/// # Errors
/// When the kernel has no randomness, which it has as soon as it is up.
pub fn secret_uuid() -> std::io::Result<Uuid> {
    let mut bytes = [0; 16];
    // getrandom(2): up to 256 bytes come whole, and no signal interrupts it.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// A seed from the system's randomness.
pub fn system_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Each `RandomState` of the standard library is keyed by the system's generator.
    std::hash::RandomState::new().build_hasher().finish()
}
