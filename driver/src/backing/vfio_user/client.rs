//! Requests to a vfio-user server, and the judgement of its replies. Nothing that it says is believed unchecked.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::region::{Region, sparse_areas};
use super::socket::{Deadline, Socket};
use super::wire::{
    BODY_MAX, Command, DEVICE_PCI, DEVICE_RESETTABLE, DMA_READ_WRITE, DeviceInfo, DmaMap, DmaUnmap,
    FLAG_ERROR, FLAG_NO_REPLY, HEADER_BYTES, Header, IrqInfo, MAJOR, MINOR, REGION_CAPABILITIES,
    RegionAccess, RegionInfo, SET_IRQS_EVENTFD_TRIGGER, SetIrqs, TYPE_COMMAND, TYPE_MASK, TYPE_REPLY,
    Version,
};
use crate::backing::BackingError;

/// What this client offers. It can take a few descriptors with a message, and moves little data over the socket.
const CAPABILITIES: &str = r#"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":4096}}"#;
/// Bytes asked for with region information: room for more areas than are accepted.
const REGION_INFO_BYTES: u32 = 1024;
/// Most commands of the server that are answered while waiting for one reply.
const INTERRUPTIONS_MAX: usize = 64;
/// Longest explanation or capability list read from the server, in bytes.
const JSON_MAX: usize = 4096;

/// A connection on which the version has been agreed.
#[derive(Debug)]
pub(super) struct Client {
    socket: Socket,
    timeout: Duration,
    next_id: u16,
    resettable: bool,
    /// Set by the first breach of the protocol: where one message ends is not known any more.
    broken: bool,
}

struct Reply {
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

#[derive(Deserialize)]
struct Offer {
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Deserialize)]
struct Capabilities {
    /// The protocol's default.
    #[serde(default = "one")]
    max_msg_fds: u64,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { max_msg_fds: one() }
    }
}

const fn one() -> u64 {
    1
}

impl Client {
    /// Connects, agrees on a version, and checks that a PCI device is served.
    pub(super) fn connect(path: &Path, timeout: Duration) -> Result<Self, BackingError> {
        let socket = Socket::connect(path, Deadline::new("connecting to the card's socket", timeout))?;
        Self::over(socket, timeout)
    }

    /// As [`Client::connect`], on a socket that is connected.
    pub(super) fn over(socket: Socket, timeout: Duration) -> Result<Self, BackingError> {
        let mut client = Self { socket, timeout, next_id: 0, resettable: false, broken: false };
        client.negotiate()?;
        client.look_at_device()?;
        Ok(client)
    }

    fn negotiate(&mut self) -> Result<(), BackingError> {
        const WHAT: &str = "agreeing on a protocol version";
        let mut body = Version { major: MAJOR, minor: MINOR }.as_bytes().to_vec();
        body.extend_from_slice(CAPABILITIES.as_bytes());
        body.push(0);
        let reply = self.request(WHAT, Command::Version, &body, &[])?;
        let (version, json) = self.prefix::<Version>(WHAT, &reply)?;
        if version.major != MAJOR || version.minor > MINOR {
            let problem = format!(
                "the server speaks version {}.{}, this client {MAJOR}.{MINOR}",
                version.major, version.minor
            );
            return Err(BackingError::Unsuitable { what: WHAT, problem });
        }
        let json = json.strip_suffix(&[0]).unwrap_or(json);
        if json.is_empty() {
            return Ok(());
        }
        if json.len() > JSON_MAX {
            return Err(self.breach(WHAT, format!("{} bytes of capabilities", json.len())));
        }
        let offer: Offer = serde_json::from_slice(json)
            .map_err(|error| self.breach(WHAT, format!("capabilities: {error}")))?;
        if offer.capabilities.max_msg_fds == 0 {
            let problem = "the server takes no descriptors, so memory cannot be shared with it".to_owned();
            return Err(BackingError::Unsuitable { what: WHAT, problem });
        }
        Ok(())
    }

    fn look_at_device(&mut self) -> Result<(), BackingError> {
        const WHAT: &str = "asking what device is served";
        let request = DeviceInfo { argsz: size_u32::<DeviceInfo>(), flags: 0, regions: 0, irqs: 0 };
        let reply = self.request(WHAT, Command::DeviceInfo, request.as_bytes(), &[])?;
        let (info, _) = self.prefix::<DeviceInfo>(WHAT, &reply)?;
        if info.flags & DEVICE_PCI == 0 {
            return Err(BackingError::Unsuitable { what: WHAT, problem: "it is no PCI device".to_owned() });
        }
        self.resettable = info.flags & DEVICE_RESETTABLE != 0;
        Ok(())
    }

    /// What the server says about region `index`.
    pub(super) fn region(&mut self, what: &'static str, index: u32) -> Result<Region, BackingError> {
        let request =
            RegionInfo { argsz: REGION_INFO_BYTES, flags: 0, index, cap_offset: 0, size: 0, offset: 0 };
        let mut reply = self.request(what, Command::RegionInfo, request.as_bytes(), &[])?;
        let (info, _) = self.prefix::<RegionInfo>(what, &reply)?;
        if info.index != index {
            return Err(self.breach(what, format!("asked for region {index}, got {}", info.index)));
        }
        let areas = if info.flags & REGION_CAPABILITIES == 0 {
            None
        } else {
            sparse_areas(&reply.body, info.cap_offset).map_err(|problem| self.breach(what, problem))?
        };
        if reply.descriptors.len() > 1 {
            return Err(self.breach(what, format!("{} descriptors for one region", reply.descriptors.len())));
        }
        let descriptor = reply.descriptors.pop();
        Ok(Region { flags: info.flags, size: info.size, offset: info.offset, areas, descriptor })
    }

    /// How many interrupts of kind `index` can be signalled by eventfd.
    pub(super) fn interrupts(&mut self, what: &'static str, index: u32) -> Result<u32, BackingError> {
        let request = IrqInfo { argsz: size_u32::<IrqInfo>(), flags: 0, index, count: 0 };
        let reply = self.request(what, Command::IrqInfo, request.as_bytes(), &[])?;
        let (info, _) = self.prefix::<IrqInfo>(what, &reply)?;
        if info.index != index {
            return Err(self.breach(what, format!("asked for interrupt kind {index}, got {}", info.index)));
        }
        Ok(if info.flags & super::wire::IRQ_EVENTFD == 0 { 0 } else { info.count })
    }

    /// Has interrupt `vector` of kind `index` signalled through `eventfd`.
    pub(super) fn wire_interrupt(
        &mut self,
        what: &'static str,
        (index, vector): (u32, u32),
        eventfd: BorrowedFd<'_>,
    ) -> Result<(), BackingError> {
        let flags = SET_IRQS_EVENTFD_TRIGGER;
        let request = SetIrqs { argsz: size_u32::<SetIrqs>(), flags, index, start: vector, count: 1 };
        self.request(what, Command::SetIrqs, request.as_bytes(), &[eventfd])?;
        Ok(())
    }

    /// Gives the device `size` bytes of `file`, from its start, at `iova`.
    pub(super) fn map_dma(&mut self, file: BorrowedFd<'_>, iova: u64, size: u64) -> Result<(), BackingError> {
        let argsz = size_u32::<DmaMap>();
        let request = DmaMap { argsz, flags: DMA_READ_WRITE, offset: 0, address: iova, size };
        self.request("mapping DMA memory", Command::DmaMap, request.as_bytes(), &[file])?;
        Ok(())
    }

    /// Takes the memory at `iova` from the device.
    pub(super) fn unmap_dma(&mut self, iova: u64, size: u64) -> Result<(), BackingError> {
        let request = DmaUnmap { argsz: size_u32::<DmaUnmap>(), flags: 0, address: iova, size };
        self.request("unmapping DMA memory", Command::DmaUnmap, request.as_bytes(), &[])?;
        Ok(())
    }

    /// Reads a region over the socket.
    pub(super) fn read(
        &mut self,
        what: &'static str,
        region: u32,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), BackingError> {
        let request = access(what, region, offset, into.len())?;
        let reply = self.request(what, Command::RegionRead, request.as_bytes(), &[])?;
        let (answer, data) = self.prefix::<RegionAccess>(what, &reply)?;
        if answer != request || data.len() != into.len() {
            return Err(
                self.breach(what, format!("asked for {request:?}, got {answer:?} with {} bytes", data.len()))
            );
        }
        into.copy_from_slice(data);
        Ok(())
    }

    /// Writes a region over the socket.
    pub(super) fn write(
        &mut self,
        what: &'static str,
        region: u32,
        offset: u64,
        from: &[u8],
    ) -> Result<(), BackingError> {
        let request = access(what, region, offset, from.len())?;
        let body = [request.as_bytes(), from].concat();
        let reply = self.request(what, Command::RegionWrite, &body, &[])?;
        let (answer, _) = self.prefix::<RegionAccess>(what, &reply)?;
        if answer != request {
            return Err(self.breach(what, format!("asked for {request:?}, got {answer:?}")));
        }
        Ok(())
    }

    /// Resets the device.
    pub(super) fn reset(&mut self) -> Result<(), BackingError> {
        const WHAT: &str = "resetting the function";
        if !self.resettable {
            return Err(BackingError::Unsuitable {
                what: WHAT,
                problem: "the server cannot reset it".to_owned(),
            });
        }
        self.request(WHAT, Command::DeviceReset, &[], &[])?;
        Ok(())
    }

    /// Answers what the server asks for on its own account, without waiting for anything.
    pub(super) fn serve_unasked(&mut self) -> Result<(), BackingError> {
        const WHAT: &str = "hearing the card's server";
        self.usable(WHAT)?;
        let deadline = Deadline::new(WHAT, self.timeout);
        let outcome = self.next_message(deadline).and_then(|(header, _)| match header.flags & TYPE_MASK {
            TYPE_COMMAND => self.refuse(header, deadline),
            _ => Err(protocol(WHAT, format!("a reply to nothing: {header:?}"))),
        });
        self.broken |= outcome.is_err();
        outcome
    }

    /// Sends a command and waits for its reply.
    fn request(
        &mut self,
        what: &'static str,
        command: Command,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Reply, BackingError> {
        self.usable(what)?;
        let deadline = Deadline::new(what, self.timeout);
        self.next_id = self.next_id.wrapping_add(1);
        let size = u32::try_from(HEADER_BYTES + body.len())
            .map_err(|_| BackingError::Unsuitable { what, problem: "the message is too long".to_owned() })?;
        let header =
            Header { id: self.next_id, command: command as u16, size, flags: TYPE_COMMAND, error: 0 };
        let message = [header.as_bytes(), body].concat();
        let outcome = match self.socket.send(&message, descriptors, deadline) {
            Ok(()) => self.await_reply(command, deadline),
            Err(error) => Err(error),
        };
        // Only a refusal leaves the connection in order: after anything else a late reply could be taken for another's.
        self.broken |= matches!(&outcome, Err(error) if !matches!(error, BackingError::Refused { .. }));
        outcome
    }

    fn await_reply(&mut self, command: Command, deadline: Deadline) -> Result<Reply, BackingError> {
        let what = deadline.what();
        for _ in 0..=INTERRUPTIONS_MAX {
            let (header, reply) = self.next_message(deadline)?;
            match header.flags & TYPE_MASK {
                TYPE_COMMAND => {
                    self.refuse(header, deadline)?;
                    continue;
                }
                TYPE_REPLY => {}
                other => return Err(protocol(what, format!("a message of type {other}"))),
            }
            if header.id != self.next_id || header.command != command as u16 {
                let asked = format!("request {} of command {}", self.next_id, command as u16);
                return Err(protocol(
                    what,
                    format!("the reply to {asked} is {} of {}", header.id, header.command),
                ));
            }
            if header.flags & FLAG_ERROR == 0 {
                return Ok(reply);
            }
            // Zero as a reason is no reason, and still a refusal.
            let errno = i32::try_from(header.error).unwrap_or_default();
            return Err(BackingError::Refused { what, errno });
        }
        Err(protocol(what, format!("{INTERRUPTIONS_MAX} commands came instead of a reply")))
    }

    /// Reads one message of bounded length.
    fn next_message(&self, deadline: Deadline) -> Result<(Header, Reply), BackingError> {
        let mut descriptors = Vec::new();
        let mut octets = [0_u8; HEADER_BYTES];
        self.socket.receive(&mut octets, &mut descriptors, deadline)?;
        let header: Header = zerocopy::transmute!(octets);
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        let length = size
            .checked_sub(HEADER_BYTES)
            .filter(|length| *length <= BODY_MAX)
            .ok_or_else(|| protocol(deadline.what(), format!("a message claims {size} bytes")))?;
        let mut body = vec![0; length];
        self.socket.receive(&mut body, &mut descriptors, deadline)?;
        Ok((header, Reply { body, descriptors }))
    }

    /// Answers a command of the server with an error: its DMA goes through memory that is shared.
    fn refuse(&self, header: Header, deadline: Deadline) -> Result<(), BackingError> {
        if header.flags & FLAG_NO_REPLY != 0 {
            return Ok(());
        }
        let size = u32::try_from(HEADER_BYTES).unwrap_or_default();
        let error = nix::libc::ENOTSUP.unsigned_abs();
        let answer = Header { size, flags: TYPE_REPLY | FLAG_ERROR, error, ..header };
        self.socket.send(answer.as_bytes(), &[], deadline)
    }

    fn prefix<'a, T>(&mut self, what: &'static str, reply: &'a Reply) -> Result<(T, &'a [u8]), BackingError>
    where
        T: FromBytes + KnownLayout + Immutable,
    {
        T::read_from_prefix(&reply.body)
            .map_err(|_| self.breach(what, format!("the reply has only {} bytes", reply.body.len())))
    }

    fn usable(&self, what: &'static str) -> Result<(), BackingError> {
        if self.broken { Err(BackingError::Gone { what }) } else { Ok(()) }
    }

    fn breach(&mut self, what: &'static str, problem: String) -> BackingError {
        self.broken = true;
        protocol(what, problem)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const fn protocol(what: &'static str, problem: String) -> BackingError {
    BackingError::Protocol { what, problem }
}

fn size_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

fn access(what: &'static str, region: u32, offset: u64, length: usize) -> Result<RegionAccess, BackingError> {
    let count = u32::try_from(length).ok().filter(|count| *count <= REGION_INFO_BYTES);
    let count =
        count.ok_or_else(|| BackingError::Unsuitable { what, problem: format!("{length} bytes at once") })?;
    Ok(RegionAccess { offset, region, count })
}
