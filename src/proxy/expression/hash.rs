//! HAProxy's hashes (`hash-type` in 4.2 of the manual): the same numbers as its balancing and converters give.

/// Spreads a hash over all its bits (`full_hash`).
pub(crate) fn avalanche(mut a: u32) -> u32 {
    a = a.wrapping_add(0x7ed5_5d16).wrapping_add(a << 12);
    a = (a ^ 0xc761_c23c) ^ (a >> 19);
    a = a.wrapping_add(0x1656_67b1).wrapping_add(a << 5);
    a = a.wrapping_add(0xd3a2_646c) ^ (a << 9);
    a = a.wrapping_add(0xfd70_46c5).wrapping_add(a << 3);
    // The last factor spreads neighbours over HAProxy's trees.
    ((a ^ 0xb55a_4f09) ^ (a >> 16)).wrapping_mul(3_221_225_473)
}

/// SDBM over `bytes`, from a hash of what stood before.
pub(crate) fn sdbm_from(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, byte| {
        u32::from(*byte).wrapping_add(hash << 6).wrapping_add(hash << 16).wrapping_sub(hash)
    })
}

/// SDBM.
pub(crate) fn sdbm(bytes: &[u8]) -> u32 {
    sdbm_from(0, bytes)
}

/// DJB2.
pub(crate) fn djb2(bytes: &[u8]) -> u32 {
    bytes.iter().fold(5381, |hash: u32, byte| (hash << 5).wrapping_add(hash).wrapping_add(u32::from(*byte)))
}

/// WT6: two words that are rotated by amounts that they themselves give.
pub(crate) fn wt6(bytes: &[u8]) -> u32 {
    let (mut low, mut high): (u32, u32) = (0xa53c_965a, 0x5ca6_953a);
    let (mut left, mut right): (u32, u32) = (6, 18);
    for byte in bytes {
        let mixed = !(low ^ u32::from(*byte));
        let added = !high.wrapping_add(u32::from(*byte));
        low = added.rotate_left(left);
        high = mixed.rotate_right(32 - right);
        let steps = ((low >> 16) ^ high) & 0xffff;
        (left, right) = (steps & 31, steps >> 11);
    }
    low ^ high
}

/// CRC-32 of Ethernet, bitwise over a table of 16.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !reflected(bytes, 0xedb8_8320)
}

/// CRC-32C (RFC 4960 appendix B).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !reflected(bytes, 0x82f6_3b78)
}

fn reflected(bytes: &[u8], polynomial: u32) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (polynomial & (crc & 1).wrapping_neg()))
    })
}
