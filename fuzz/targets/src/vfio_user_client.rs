//! The driver's vfio-user client, and what is built on it, against a server that says anything.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use qkd_driver::backing::Backing;
use qkd_driver::backing::vfio_user::fuzzing::over;

use crate::Target;

pub(crate) const TARGET: Target =
    Target { name: "vfio_user_client", run, seeds, bounded: 4_000, longest: 8_192 };

/// Nothing is waited for: all that the server will ever say is there, and its end after it.
const PATIENCE: Duration = Duration::from_secs(5);

fn run(octets: &[u8]) {
    // First octet: how long the file is whose descriptor comes with the first octet, in pages.
    let Some((pages, said)) = octets.split_first() else { return };
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    let begun = std::time::Instant::now();
    send(&there, said, *pages);
    let _ = there.shutdown(Shutdown::Write);
    if let Ok(mut backing) = over(here, PATIENCE) {
        let _ = backing.pci_identity();
        let _ = backing.pci_serial();
        let _ = backing.wire_interrupts();
        if let Ok(memory) = backing.map_dma(4096) {
            let _ = backing.unmap_dma(&memory);
        }
        let _ = backing.set_bus_mastering(true);
        let _ = backing.wait(Duration::ZERO, None);
        let _ = backing.reset_function();
    }
    assert!(begun.elapsed() < PATIENCE, "something waited for a server that has hung up");
}

fn send(mut there: &UnixStream, said: &[u8], pages: u8) {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let Some((first, rest)) = said.split_first() else { return };
    let file = memfd_create("fuzzing", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
    nix::unistd::ftruncate(&file, i64::from(pages) * 4096).expect("a length");
    let rights = [file.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    let control = if pages == 0 { &control[..0] } else { &control[..] };
    let octet = [*first];
    let slices = [std::io::IoSlice::new(&octet)];
    sendmsg::<()>(there.as_raw_fd(), &slices, control, MsgFlags::empty(), None).expect("room for an octet");
    there.write_all(rest).expect("room in the socket");
}

/// A message of the server: the reply to request `id` of `command`.
fn reply(id: u16, command: u16, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(16 + body.len()).expect("short");
    [&id.to_le_bytes()[..], &command.to_le_bytes(), &size.to_le_bytes(), &1_u32.to_le_bytes(), &[0; 4], body]
        .concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A whole honest conversation, which the client's requests fit by their order.
fn honest() -> Vec<Vec<u8>> {
    let version = [&[0, 0, 1, 0][..], b"{\"capabilities\":{\"max_msg_fds\":8}}\0"].concat();
    let config = |offset: u32, data: &[u8]| {
        [words(&[offset, 0, 7, u32::try_from(data.len()).expect("short")]), data.to_vec()].concat()
    };
    let mut id = 0;
    let mut next = |command, body: &[u8]| {
        id += 1;
        reply(id, command, body)
    };
    vec![
        next(1, &version),
        next(4, &words(&[16, 3, 9, 5])),
        next(5, &words(&[32, 7, 0, 0, 0x1_0000, 0, 0, 0])),
        next(9, &config(0, &[0x44, 0x51, 1, 0])),
        next(9, &config(0x100, &[3, 0, 1, 0])),
        next(9, &config(0x104, &[1, 2, 3, 4, 5, 6, 7, 8])),
        next(7, &words(&[16, 1, 2, 2])),
        next(8, &[]),
        next(8, &[]),
        next(7, &words(&[16, 1, 3, 1])),
        next(8, &[]),
        next(7, &words(&[16, 1, 4, 0])),
        next(2, &[]),
        next(3, &words(&[24, 0, 0, 0, 4096, 0])),
        next(9, &config(4, &[2, 0])),
        next(10, &config(4, &[])),
        next(9, &config(4, &[6, 0])),
        next(13, &[]),
    ]
}

fn seeds() -> Vec<Vec<u8>> {
    let honest = honest();
    let mut seeds: Vec<Vec<u8>> =
        (1..=honest.len()).map(|count| [vec![16], honest[..count].concat()].concat()).collect();
    // A server that asks in between.
    let asks = [16_u16.to_le_bytes(), 11_u16.to_le_bytes()].concat();
    let asks = [asks, words(&[16, 0, 0])].concat();
    seeds.push([vec![16], asks, honest.concat()].concat());
    seeds
}
