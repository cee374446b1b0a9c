//! The client's memory: what may be mapped, what the card reaches of it, and what happens when it is taken away.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::MFdFlags;
use qkd_contract::layout::self_test_octet;
use qkd_contract::registers as reg;

use super::client::{Client, RETAINED, Served, memory, named_memory, sealable};

const OK: Errno = Errno::UnknownErrno;
const PAGE: u64 = 4096;
const SLOT: u64 = 8192;
const IOVA: u64 = 0x4000_0000;
/// Two slots, the event ring, the acknowledgement ring.
const EVENTS: u64 = IOVA + 2 * SLOT;
const ACKS: u64 = EVENTS + PAGE;
const AREA: u64 = 2 * SLOT + 2 * PAGE;

fn set_rings(client: &mut Client) {
    client.await_register(&reg::STATE, 2);
    client.write(7, 4, &[6, 0]);
    for (register, value) in [
        (&reg::SLOT_BASE, IOVA),
        (&reg::EVENT_BASE, EVENTS),
        (&reg::ACK_BASE, ACKS),
        (&reg::SLOT_BYTES, SLOT),
        (&reg::SLOT_COUNT, 2),
        (&reg::EVENT_COUNT, 64),
        (&reg::ACK_COUNT, 64),
    ] {
        client.set_register(register, value);
    }
}

fn command(client: &mut Client, tag: u64, opcode: u64) -> u64 {
    client.set_register(&reg::COMMAND, tag << 16 | opcode);
    let deadline = std::time::Instant::now() + super::client::PATIENCE;
    loop {
        let done = client.register(&reg::COMMAND_DONE);
        if done >> 16 == tag {
            return done & 0xFFFF;
        }
        assert!(std::time::Instant::now() < deadline, "no outcome");
    }
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let served = Served::new();
    let mut client = served.agreed();
    let file = sealable(4 * PAGE);
    for (iova, bytes, offset) in [
        (IOVA, 0, 0),
        (IOVA + 1, PAGE, 0),
        (IOVA, PAGE + 1, 0),
        (u64::MAX - PAGE + 1, PAGE, 0),
        (IOVA, u64::MAX - PAGE + 1, 0),
        (IOVA, 5 * PAGE, 0),
        (IOVA, PAGE, 4 * PAGE),
        (IOVA, PAGE, u64::MAX - PAGE + 1),
    ] {
        assert_eq!(
            client.map(iova, bytes, offset, Some(file.as_fd())),
            Errno::EINVAL,
            "{iova:#x} {bytes:#x}"
        );
    }
    assert_eq!(client.map(IOVA, 2 * PAGE, 0, Some(file.as_fd())), OK);
    for (iova, bytes) in [(IOVA, PAGE), (IOVA + PAGE, PAGE), (IOVA - PAGE, 2 * PAGE), (IOVA - PAGE, 4 * PAGE)]
    {
        assert_eq!(client.map(iova, bytes, 0, Some(file.as_fd())), Errno::EEXIST);
    }
}

#[test]
fn memory_that_could_shrink_is_sealed_or_refused() {
    let served = Served::new();
    let mut client = served.agreed();
    let open = sealable(PAGE);
    assert_eq!(client.map(IOVA, PAGE, 0, Some(open.as_fd())), OK);
    let seals = SealFlag::from_bits_truncate(fcntl(&open, FcntlArg::F_GET_SEALS).unwrap());
    assert!(seals.contains(SealFlag::F_SEAL_SHRINK));
    assert!(open.set_len(0).is_err(), "it cannot shrink any more");

    let sealed_against_seals = memory(PAGE, MFdFlags::empty());
    assert_eq!(client.map(2 * IOVA, PAGE, 0, Some(sealed_against_seals.as_fd())), Errno::EPERM);
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE).unwrap();
    assert_ne!(client.map(2 * IOVA, PAGE, 0, Some(file.as_fd())), OK);
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_ne!(client.map(2 * IOVA, PAGE, 0, Some(socket.as_fd())), OK);
    let two = [sealable(PAGE), sealable(PAGE)];
    let fds = super::client::as_fds(&two);
    let body = [32_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
    let range = [0, 2 * IOVA, PAGE].map(u64::to_le_bytes).concat();
    assert_eq!(
        client.refused(2, &[body, range].concat(), &fds),
        Errno::EINVAL,
        "two descriptors for one range"
    );
}

#[test]
fn the_registers_cannot_be_passed_back_as_memory() {
    let served = Served::new();
    let mut client = served.agreed();
    let mut asked = vec![0; 32];
    asked[0] = 64;
    let registers = client.call(5, &asked, &[]).descriptors.remove(0);
    assert_eq!(client.map(IOVA, PAGE, 0, Some(registers.as_fd())), Errno::EINVAL);
}

#[test]
fn the_card_writes_through_pages_that_were_mapped_one_by_one() {
    let served = Served::new();
    let mut client = served.agreed();
    let file = sealable(AREA);
    // In reverse, so that neighbours in I/O virtual addresses are far apart in the file.
    for page in 0..AREA / PAGE {
        let offset = AREA - (page + 1) * PAGE;
        assert_eq!(client.map(IOVA + page * PAGE, PAGE, offset, Some(file.as_fd())), OK);
    }
    set_rings(&mut client);
    assert_eq!(command(&mut client, 1, 5), 1);
    let mut pattern = vec![0; 4096];
    file.read_exact_at(&mut pattern, AREA - PAGE).unwrap();
    assert!((0..4096).zip(&pattern).all(|(index, octet)| self_test_octet(index) == *octet));

    assert_eq!(command(&mut client, 2, 1), 1);
    client.set_register(&reg::SLOT_CREDIT, 2);
    let event = |number: u64| {
        let mut last = [0; 8];
        let place = AREA - (2 * SLOT / PAGE + 1) * PAGE + (number - 1) * 64 + 56;
        file.read_exact_at(&mut last, place).unwrap();
        u64::from_le_bytes(last) >> 32
    };
    let deadline = std::time::Instant::now() + super::client::PATIENCE;
    while event(2) != 2 {
        assert!(std::time::Instant::now() < deadline, "two blocks never came");
    }
    // The payload begins 64 octets into the first page of its slot and ends in the next one.
    let mut ends = [[0; 1]; 2];
    file.read_exact_at(&mut ends[0], AREA - PAGE + 64).unwrap();
    file.read_exact_at(&mut ends[1], AREA - 2 * PAGE + 63).unwrap();
    assert_eq!(ends, [[0xC5], [0xC5]]);
    assert_eq!(event(3), 0, "no slot for the third");
}

#[test]
fn dma_to_memory_without_a_descriptor_or_without_permission_is_a_fault() {
    for writable in [false, true] {
        let served = Served::new();
        let mut client = served.agreed();
        if writable {
            assert_eq!(client.map(IOVA, AREA, 0, None), OK, "such ranges are part of a virtual machine");
        } else {
            let file = sealable(AREA);
            let mut body = [32_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
            body.extend_from_slice(&[0, IOVA, AREA].map(u64::to_le_bytes).concat());
            assert_eq!(client.call(2, &body, &[file.as_fd()]).error, 0);
        }
        set_rings(&mut client);
        assert_eq!(command(&mut client, 1, 5), 5, "Failed");
        assert_eq!((client.register(&reg::STATE), client.register(&reg::FAULT)), (7, 2));
    }
}

#[test]
fn nothing_is_reached_after_it_was_unmapped() {
    let served = Served::new();
    let mut client = served.agreed();
    let file = sealable(AREA);
    assert_eq!(client.map(IOVA, AREA, 0, Some(file.as_fd())), OK);
    for (flags, iova, bytes, expected) in [
        (0, IOVA, PAGE, Err(Errno::EINVAL)),
        (0, IOVA + PAGE, AREA, Err(Errno::EINVAL)),
        (0, IOVA - PAGE, AREA, Err(Errno::EINVAL)),
        (0, IOVA + PAGE, PAGE, Err(Errno::EINVAL)),
        (0, IOVA, 0, Err(Errno::EINVAL)),
        (0, u64::MAX, 2, Err(Errno::EINVAL)),
        (1, IOVA, AREA, Err(Errno::EOPNOTSUPP)),
        (2, IOVA, AREA, Err(Errno::EINVAL)),
        // What an emulated IOMMU does routinely: nothing is there, and that is no error.
        (0, IOVA + AREA, PAGE, Ok(0)),
        (0, 1 << 40, 1 << 40, Ok(0)),
        (0, 0, 1 << 48, Ok(AREA)),
        (0, IOVA, AREA, Ok(0)),
    ] {
        assert_eq!(client.unmap(flags, iova, bytes), expected, "{flags} {iova:#x} {bytes:#x}");
    }
    set_rings(&mut client);
    assert_eq!(command(&mut client, 1, 5), 5, "Failed");
    let mut octets = vec![0; usize::try_from(AREA).unwrap()];
    file.read_exact_at(&mut octets, 0).unwrap();
    assert!(octets.iter().all(|&octet| octet == 0));

    assert_eq!(client.map(IOVA, AREA, 0, Some(file.as_fd())), OK);
    assert_eq!(client.unmap(2, 0, 0), Ok(AREA), "all of it");
    assert_eq!(client.unmap(0, IOVA, AREA), Ok(0));
}

#[test]
fn the_next_client_finds_the_keys_and_none_of_the_last_ones_memory() {
    let served = Served::new();
    let file = sealable(AREA);
    let mut client = served.agreed();
    assert_eq!(client.map(IOVA, AREA, 0, Some(file.as_fd())), OK);
    set_rings(&mut client);
    assert_eq!(command(&mut client, 1, 1), 1);
    drop(client);
    let mut client = served.agreed();
    assert_eq!(client.unmap(0, IOVA, AREA), Ok(0));
    client.await_register(&reg::STATE, 2);
    assert_eq!(client.register(&reg::RETAINED_BLOCKS), RETAINED);
    assert!(served.port.lock().vectors.iter().all(Option::is_none));
}

/// Lines of this process's memory map, and descriptors of it, that belong to a memory of this name.
fn held(name: &str) -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_it = |target: std::path::PathBuf| target.to_string_lossy().contains(name);
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    (maps.matches(name).count(), open.filter(|target| is_it(target.clone())).count())
}

#[test]
fn as_many_pages_of_one_memory_as_the_card_says_cost_one_mapping_and_one_descriptor() {
    const NAME: &str = "a-guests-memory";
    const PAGES: u64 = 65_535;
    let served = Served::new();
    let mut client = served.agreed();
    let file = named_memory(NAME, PAGES * PAGE, MFdFlags::MFD_ALLOW_SEALING);
    // Every page for itself, far apart by address, as the pages of a guest's IOMMU come.
    let iova = |page: u64| IOVA + page * 3 * PAGE;
    for page in 0..PAGES {
        assert_eq!(client.map(iova(page), PAGE, (PAGES - 1 - page) * PAGE, Some(file.as_fd())), OK, "{page}");
    }
    assert_eq!(held(NAME), (1, 2), "one mapping; our descriptor and the server's");
    assert_eq!(client.map(iova(PAGES), PAGE, 0, Some(file.as_fd())), Errno::ENOSPC);
    let last = PAGES - 1;
    client.await_register(&reg::STATE, 2);
    client.write(7, 4, &[6, 0]);
    for (register, value) in [
        (&reg::SLOT_BASE, iova(last)),
        (&reg::EVENT_BASE, iova(last) + 0x10_0000),
        (&reg::ACK_BASE, iova(last) + 0x20_0000),
        (&reg::SLOT_BYTES, SLOT),
        (&reg::SLOT_COUNT, 2),
        (&reg::EVENT_COUNT, 64),
        (&reg::ACK_COUNT, 64),
    ] {
        client.set_register(register, value);
    }
    assert_eq!(command(&mut client, 1, 5), 1, "the self-test reaches the last page");
    let mut first = [0; 1];
    file.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(first, [self_test_octet(0)]);

    for page in 0..1000 {
        assert_eq!(client.unmap(0, iova(page), PAGE), Ok(PAGE));
    }
    assert_eq!(client.unmap(0, 0, 1 << 48), Ok((PAGES - 1000) * PAGE));
    assert_eq!(held(NAME), (0, 1), "nothing of it is held");
}
