//! Moves key out of memory that somebody else may write and sums it up on the way: one pass, on processors that multiply
//! polynomials over vectors of 64 octets (AVX-512 with VPCLMULQDQ).
//!
//! What was moved is folded into one vector that leaves the same remainder as all of it. The sum of that vector is left to whoever
//! sums up everything else.
#![allow(unsafe_code, reason = "vector instructions, through raw pointers as all access to such memory")]

use std::arch::x86_64::__m512i;
use std::is_x86_feature_detected;

use super::{Folded, UNIT};

/// Octets of a vector, of which a unit has four.
const VECTOR: usize = 64;

/// Octets ahead of those that are moved from which the processor fetches what comes next, for itself alone: a load would share a
/// line with the card that wrote it, and the store that follows would have to ask for it again.
const AHEAD: usize = 1024;

/// Start value of a CRC-32C (BLK-5), which is that of the first four octets inverted.
const START: [u64; 8] = [0xffff_ffff, 0, 0, 0, 0, 0, 0, 0];
/// What a vector is multiplied by to be a unit further ahead of what follows it.
const UNIT_AHEAD: [u64; 8] = factors(UNIT);
/// What a vector is multiplied by to be a vector further ahead of what follows it.
const VECTOR_AHEAD: [u64; 8] = factors(VECTOR);

/// Factors of the lower and of the upper 64 bits of each of a vector's four lanes, for so many octets ahead.
const fn factors(octets: usize) -> [u64; 8] {
    let bits = octets * 8;
    // The product of two reflected numbers lies a bit too low, and of 64 bits the factor has the upper 32.
    let (lower, upper) = (reflected_power(bits + 32) << 1, reflected_power(bits - 32) << 1);
    [lower, upper, lower, upper, lower, upper, lower, upper]
}

/// The power of x by Castagnoli's polynomial (BLK-5), reflected: x^0 is the highest of 32 bits.
const fn reflected_power(exponent: usize) -> u64 {
    const POLYNOMIAL: u64 = 0x82f6_3b78;
    let mut power = 1 << 31;
    let mut done = 0;
    while done < exponent {
        power = (power >> 1) ^ (POLYNOMIAL * (power & 1));
        done += 1;
    }
    power
}

/// Moves the octets from `from` on into `into` and leaves zeroes behind. Gives a vector whose CRC-32C is that of them all; `None`,
/// with nothing done, where the processor cannot or there are none.
///
/// # Safety
/// As many octets as `into` has are mapped from `from` on, readable and writable, and no reference to them exists.
pub(super) unsafe fn take(from: *mut u8, into: &mut [[u8; UNIT]]) -> Option<Folded> {
    if into.is_empty() || !is_x86_feature_detected!("avx512f") || !is_x86_feature_detected!("vpclmulqdq") {
        return None;
    }
    // SAFETY: the processor has both features; the rest is the caller's promise, and that there is a unit was looked at.
    Some(unsafe { fold(from, into) })
}

/// # Safety
/// As for [`take`], and `into` has a unit.
#[target_feature(enable = "avx512f,vpclmulqdq")]
unsafe fn fold(from: *mut u8, into: &mut [[u8; UNIT]]) -> Folded {
    let mut folded = Folded::default();
    let vector = |words: &[u64; 8]| -> __m512i {
        // SAFETY: both are 64 octets of which each value means something.
        unsafe { std::mem::transmute(*words) }
    };
    // SAFETY: each of `into.len()` rounds, of which there is one at least, loads and then overwrites the unit at `from` and stores
    // to that of `into`; both pointers are one unit further in the next. What is fetched ahead may lie anywhere, as that
    // instruction never faults. In the end `folded`'s 64 octets are stored to. The compiler knows of no access but that the
    // block may make any, so somebody else may write to `from` meanwhile; each octet is loaded once, and it is the loaded one
    // that is stored and summed up.
    unsafe {
        std::arch::asm!(
            "vpxorq {a}, {a}, {a}",
            "vpxorq {b}, {b}, {b}",
            "vpxorq {c}, {c}, {c}",
            "vpxorq {d}, {d}, {d}",
            "vpxorq {zero}, {zero}, {zero}",
            "2:",
            "prefetchw [{from} + {ahead}]",
            "prefetchw [{from} + {ahead} + 64]",
            "prefetchw [{from} + {ahead} + 128]",
            "prefetchw [{from} + {ahead} + 192]",
            "prefetchw [{into} + {ahead}]",
            "prefetchw [{into} + {ahead} + 64]",
            "prefetchw [{into} + {ahead} + 128]",
            "prefetchw [{into} + {ahead} + 192]",
            "vmovdqu64 {e}, [{from}]",
            "vmovdqu64 {f}, [{from} + 64]",
            "vmovdqu64 {g}, [{from} + 128]",
            "vmovdqu64 {h}, [{from} + 192]",
            "vmovdqu64 [{into}], {e}",
            "vmovdqu64 [{into} + 64], {f}",
            "vmovdqu64 [{into} + 128], {g}",
            "vmovdqu64 [{into} + 192], {h}",
            "vmovdqu64 [{from}], {zero}",
            "vmovdqu64 [{from} + 64], {zero}",
            "vmovdqu64 [{from} + 128], {zero}",
            "vmovdqu64 [{from} + 192], {zero}",
            "vpxorq {e}, {e}, {start}",
            "vpxorq {start}, {start}, {start}",
            "vpclmulqdq {lower}, {a}, {unit_ahead}, 0x00",
            "vpclmulqdq {a}, {a}, {unit_ahead}, 0x11",
            "vpternlogq {a}, {lower}, {e}, 0x96",
            "vpclmulqdq {lower}, {b}, {unit_ahead}, 0x00",
            "vpclmulqdq {b}, {b}, {unit_ahead}, 0x11",
            "vpternlogq {b}, {lower}, {f}, 0x96",
            "vpclmulqdq {lower}, {c}, {unit_ahead}, 0x00",
            "vpclmulqdq {c}, {c}, {unit_ahead}, 0x11",
            "vpternlogq {c}, {lower}, {g}, 0x96",
            "vpclmulqdq {lower}, {d}, {unit_ahead}, 0x00",
            "vpclmulqdq {d}, {d}, {unit_ahead}, 0x11",
            "vpternlogq {d}, {lower}, {h}, 0x96",
            "add {from}, 256",
            "add {into}, 256",
            "dec {units}",
            "jnz 2b",
            "vpclmulqdq {lower}, {a}, {vector_ahead}, 0x00",
            "vpclmulqdq {a}, {a}, {vector_ahead}, 0x11",
            "vpternlogq {b}, {lower}, {a}, 0x96",
            "vpclmulqdq {lower}, {b}, {vector_ahead}, 0x00",
            "vpclmulqdq {b}, {b}, {vector_ahead}, 0x11",
            "vpternlogq {c}, {lower}, {b}, 0x96",
            "vpclmulqdq {lower}, {c}, {vector_ahead}, 0x00",
            "vpclmulqdq {c}, {c}, {vector_ahead}, 0x11",
            "vpternlogq {d}, {lower}, {c}, 0x96",
            "vmovdqu64 [{folded}], {d}",
            ahead = const AHEAD,
            from = inout(reg) from => _,
            into = inout(reg) into.as_mut_ptr() => _,
            units = inout(reg) into.len() => _,
            folded = in(reg) folded.as_mut_ptr(),
            start = inout(zmm_reg) vector(&START) => _,
            unit_ahead = in(zmm_reg) vector(&UNIT_AHEAD),
            vector_ahead = in(zmm_reg) vector(&VECTOR_AHEAD),
            a = out(zmm_reg) _,
            b = out(zmm_reg) _,
            c = out(zmm_reg) _,
            d = out(zmm_reg) _,
            e = out(zmm_reg) _,
            f = out(zmm_reg) _,
            g = out(zmm_reg) _,
            h = out(zmm_reg) _,
            lower = out(zmm_reg) _,
            zero = out(zmm_reg) _,
            options(nostack)
        );
    }
    // The start value is in it already, and whoever sums it up begins with it again.
    for (word, start) in folded.iter_mut().zip(START) {
        *word ^= start;
    }
    folded
}
