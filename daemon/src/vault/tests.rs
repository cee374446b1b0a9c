//! What is feared of the vault: key that stays behind, key given twice, room lost.

use proptest::prelude::*;

use super::{KeyBlock, KeyExtent, Locking, MemoryKind, Room, TakenTwice, Vault, VaultError};

fn vault(bytes: u64) -> Vault {
    Vault::new(bytes, Locking::Preferred).unwrap()
}

fn filled(vault: &Vault, length: u32) -> KeyBlock {
    let mut room = vault.reserve(length).unwrap();
    for (at, octet) in room.as_mut_slice().iter_mut().enumerate() {
        *octet = u8::try_from(at % 251).unwrap() + 1;
    }
    room.seal()
}

#[test]
fn an_unsealed_room_leaves_no_key_behind() {
    let vault = vault(65_536);
    let mut room = vault.reserve(5000).unwrap();
    room.as_mut_slice().fill(0xa5);
    assert_eq!(vault.used(), 8192);
    drop(room);
    assert_eq!(vault.used(), 0);
    assert!(vault.arena.is_zero());
}

#[test]
fn what_was_never_taken_is_wiped_with_its_block() {
    let vault = vault(65_536);
    let mut block = filled(&vault, 9000);
    let extent = block.take(100, 50).unwrap();
    drop(block);
    assert_eq!(vault.used(), 12_288, "an extent keeps its block's pages");
    assert_eq!(extent.bytes()[0], 101);
    drop(extent);
    assert_eq!(vault.used(), 0);
    assert!(vault.arena.is_zero());
}

#[test]
fn wiping_the_front_leaves_the_rest_as_it_is() {
    let vault = vault(65_536);
    let mut block = filled(&vault, 200);
    let mut extent = block.take(0, 100).unwrap();
    let rest = block.take(100, 100).unwrap();
    extent.wipe_front(40);
    assert_eq!((extent.length(), extent.bytes()[0]), (60, 41));
    extent.wipe_front(1000);
    assert!(extent.bytes().is_empty());
    assert_eq!(rest.bytes()[0], 101);
    drop((extent, block, rest));
    assert!(vault.arena.is_zero());
}

#[test]
fn a_full_vault_gives_no_room_until_some_is_free() {
    let vault = vault(65_536);
    let blocks: Vec<_> = (0..4).map(|_| filled(&vault, 16_384)).collect();
    assert_eq!((vault.free(), vault.size()), (0, 65_536));
    assert!(vault.reserve(1).is_none());
    drop(blocks);
    assert!(vault.reserve(65_536).is_some());
    assert!(vault.reserve(65_537).is_none());
    assert!(vault.reserve(u32::MAX).is_none());
    assert!(vault.reserve(0).is_none());
}

#[test]
fn a_part_outside_the_block_is_refused() {
    let vault = vault(65_536);
    let mut block = filled(&vault, 100);
    for (offset, length) in [(0, 101), (100, 1), (0, 0), (u32::MAX, u32::MAX), (99, 2)] {
        assert!(matches!(block.take(offset, length), Err(TakenTwice::Outside { .. })), "{offset} {length}");
    }
    assert_eq!(block.left(), 100);
}

#[test]
fn impossible_sizes_are_refused() {
    for bytes in [0, u64::MAX, u64::MAX - 65_536, 1 << 63] {
        assert!(matches!(
            Vault::new(bytes, Locking::Preferred),
            Err(VaultError::Size { .. } | VaultError::NotMapped { .. })
        ));
    }
}

#[test]
fn debug_output_holds_no_key() {
    let vault = vault(65_536);
    let mut room = vault.reserve(64).unwrap();
    room.as_mut_slice().fill(0xa5);
    let mut text = format!("{vault:?} {room:?}");
    let mut block = room.seal();
    text += &format!("{block:?} {:?}", block.take(0, 64));
    assert!(!text.contains("165") && !text.to_lowercase().contains("a5"), "{text}");
}

/// What the kernel says about the mapping that holds `address`: a line of `/proc/self/smaps`.
fn kernel_says(address: usize, what: &str) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        if let Some((from, to)) = range
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = (from..to).contains(&address);
        }
        if inside && let Some(said) = line.strip_prefix(what) {
            return said.to_owned();
        }
    }
    String::new()
}

fn kernel_flags(address: usize) -> String {
    kernel_says(address, "VmFlags:")
}

/// KiB of the mapping that holds `room` that are in memory.
fn resident(room: &Room) -> u64 {
    let said = kernel_says(room.as_slice().as_ptr() as usize, "Rss:");
    said.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn an_empty_vault_takes_no_memory_and_one_in_use_what_was_in_use_at_once() {
    // This may be more than the machine lets a process lock; then it is memory of a weaker kind, for which the same holds.
    for locking in [Locking::Preferred, Locking::Locked] {
        let Ok(vault) = Vault::new(16 << 20, locking) else { continue };
        let first = vault.reserve(10).unwrap();
        assert!(resident(&first) <= 1 << 10, "{:?}: {} KiB", vault.kind(), resident(&first));
        for _ in 0..3 {
            let mut blocks: Vec<Room> = (0..5).map(|_| vault.reserve(1 << 20).unwrap()).collect();
            blocks.iter_mut().for_each(|block| block.as_mut_slice().fill(0xa5));
            assert!((5 << 10..=7 << 10).contains(&resident(&first)), "{} KiB", resident(&first));
        }
        let rest: Vec<Room> = std::iter::from_fn(|| vault.reserve(1 << 20)).collect();
        assert_eq!(rest.len(), 15);
        assert!(rest.iter().all(|room| room.as_slice().iter().all(|octet| *octet == 0)));
        drop((first, rest));
        assert!(vault.arena.is_zero());
    }
}

#[test]
fn the_kernel_keeps_the_memory_out_of_dumps_children_and_swap() {
    let vault = vault(65_536);
    let room = vault.reserve(10).unwrap();
    let flags = kernel_flags(room.as_slice().as_ptr() as usize);
    assert!(flags.contains(" dd"), "not left out of core dumps: {flags}");
    assert!(flags.contains(" dc"), "copied to child processes: {flags}");
    assert_eq!(flags.contains(" lo"), vault.kind() != MemoryKind::Unlocked, "{:?}: {flags}", vault.kind());
}

#[test]
fn the_memory_is_of_the_kind_that_was_asked_for_and_never_a_weaker_one() {
    match Vault::new(65_536, Locking::Locked) {
        Ok(locked) => {
            assert_eq!(locked.kind(), MemoryKind::Locked);
            let flags = kernel_flags(locked.reserve(10).unwrap().as_slice().as_ptr() as usize);
            assert!(flags.contains(" lo") && flags.contains(" dd") && flags.contains(" dc"), "{flags}");
        }
        Err(refused) => assert!(matches!(refused, VaultError::NotLocked { .. }), "{refused}"),
    }
    match Vault::new(65_536, Locking::Secret) {
        Ok(secret) => assert_eq!(secret.kind(), MemoryKind::Secret),
        Err(refused) => assert!(refused.to_string().contains("vault.memory"), "{refused}"),
    }
    // More than can be mapped: secret memory is not replaced by other memory.
    let refused = Vault::new(1 << 60, Locking::Secret).unwrap_err();
    assert!(matches!(refused, VaultError::NotSecret { .. }), "{refused}");
}

#[test]
fn a_block_moves_between_threads() {
    let vault = vault(65_536);
    let filler = vault.clone();
    let mut block = std::thread::spawn(move || filled(&filler, 4096)).join().unwrap();
    assert_eq!(block.take(4095, 1).unwrap().bytes(), [u8::try_from(4095 % 251).unwrap() + 1]);
}

proptest! {
    #[test]
    fn no_octet_is_ever_taken_twice(length in 1u32..600, asked in prop::collection::vec((0u32..650, 0u32..120, any::<bool>()), 1..60)) {
        let vault = vault(65_536);
        let mut block = filled(&vault, length);
        let mut taken = vec![false; length as usize];
        let mut extents: Vec<(u32, KeyExtent)> = Vec::new();
        for (offset, count, keep) in asked {
            let range = offset as usize..(offset + count) as usize;
            let answer = block.take(offset, count);
            if count == 0 || range.end > length as usize {
                prop_assert!(matches!(answer, Err(TakenTwice::Outside { .. })), "outside");
            } else if taken[range.clone()].iter().any(|taken| *taken) {
                prop_assert!(matches!(answer, Err(TakenTwice::Gone { .. })), "gone");
            } else {
                let extent = answer.unwrap();
                taken[range].fill(true);
                // A dropped extent is wiped; its octets stay taken.
                if keep { extents.push((offset, extent)); }
            }
            for (offset, extent) in &extents {
                for (at, octet) in extent.bytes().iter().enumerate() {
                    prop_assert_eq!(usize::from(*octet), (*offset as usize + at) % 251 + 1);
                }
            }
        }
        prop_assert_eq!(block.left(), taken.iter().filter(|taken| !**taken).count());
        drop((block, extents));
        prop_assert_eq!(vault.used(), 0);
        prop_assert!(vault.arena.is_zero());
    }
}
