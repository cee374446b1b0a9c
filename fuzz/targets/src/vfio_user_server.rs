//! The simulated card's vfio-user server against a client that says anything.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use qkd_sim::server::fuzzing::Served;

use crate::Target;

pub(crate) const TARGET: Target =
    Target { name: "vfio_user_server", run, seeds, bounded: 1_500, longest: 4_096 };

fn run(octets: &[u8]) {
    static SERVED: OnceLock<Served> = OnceLock::new();
    let served = SERVED.get_or_init(|| Served::start().expect("a simulated card"));
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    there.write_all(octets).expect("room in the socket");
    let _ = there.shutdown(Shutdown::Write);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sink = [0; 4096];
            while (&there).read(&mut sink).is_ok_and(|count| count > 0) {}
        });
        assert!(served.serve(&here), "the card was not reset after the client was gone");
        drop(here);
    });
}

fn message(command: u16, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(16 + body.len()).expect("short");
    [&[1, 0][..], &command.to_le_bytes(), &size.to_le_bytes(), &[0; 8], body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    let version = message(1, &[&[0, 0, 1, 0][..], b"{\"capabilities\":{}}\0"].concat());
    let messages = [
        message(4, &words(&[16, 0, 0, 0])),
        message(5, &words(&[64, 0, 0, 0, 0, 0, 0, 0])),
        message(5, &words(&[64, 0, 7, 0, 0, 0, 0, 0])),
        message(7, &words(&[16, 0, 2, 0])),
        message(8, &[words(&[20, 0x21, 2, 0, 1])].concat()),
        message(8, &[words(&[21, 0x22, 2, 0, 1]), vec![1]].concat()),
        message(8, &words(&[20, 0x24, 2, 0, 2])),
        message(9, &words(&[0, 0, 7, 64])),
        message(9, &words(&[0, 0, 0, 4])),
        message(10, &[words(&[4, 0, 7, 2]), vec![6, 0]].concat()),
        message(10, &[words(&[0x100, 0, 0, 4]), vec![1, 0, 1, 0]].concat()),
        message(10, &[words(&[0, 0, 2, 16]), vec![0xFF; 16]].concat()),
        message(2, &words(&[32, 3, 0, 0, 0x10_0000, 0, 4096, 0])),
        message(3, &words(&[24, 0, 0x10_0000, 0, 4096, 0])),
        message(3, &words(&[24, 2, 0, 0, 0, 0])),
        message(13, &[]),
    ];
    let mut seeds: Vec<Vec<u8>> =
        messages.iter().map(|message| [version.clone(), message.clone()].concat()).collect();
    seeds.push([version, messages.concat()].concat());
    seeds
}
