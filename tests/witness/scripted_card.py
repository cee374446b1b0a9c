#!/usr/bin/env python3
"""A small card that follows a script, written from contract/CONTRACT.md and the public vfio-user protocol alone.

It shares no code with the project. `scripted_card.py SOCKET SCRIPT` listens on SOCKET, prints `ready`, serves one host
until it leaves, tells on standard output what the host did, and ends. SCRIPT is `good`, or the name of one
misbehaviour; `--list` prints all of them.
"""
import array
import errno
import mmap
import os
import select
import socket
import struct
import sys

sys.dont_write_bytecode = True  # the sources' folder stays as it is
from card_numbers import *

SCRIPTS = (
    "good", "bad-payload-crc", "bad-header-crc", "bad-event-crc", "wrong-magic", "other-major", "wrong-pattern",
    "gone-while-running", "stop-never-done", "stop-and-reset-never-done", "skipped-event", "wrong-slot", "foreign-session",
    "block-of-no-length", "reserved-bits", "replayed-without-flag", "block-again", "other-header", "unknown-kind",
    "acknowledged-too-much", "cell-falls", "foreign-answer", "not-zeroized", "heart-stops", "starts-never",
    "other-capability", "test-key",
)
SERIAL_NUMBER, PEER = 0xA1B2C3, 0xA1B2C4
BLOCK_BYTES, LENGTH = 4096, 1000
# The replayed block, and those of the session that follows.
REPLAYED, FRESH = (7, 12), ((8, 0), (8, 1), (8, 2))


def key_octets(session, sequence):
    """What the payload of a block is; the test that runs this script computes it too."""
    return bytes((session * 31 + sequence * 17 + i * 7) & 0xFF for i in range(LENGTH))


def tell(text):
    print(text, flush=True)


class Card:
    """The registers and what lies behind them."""

    def __init__(self, script):
        self.script = script
        self.file = os.memfd_create("scripted-card", os.MFD_CLOEXEC)
        os.ftruncate(self.file, 0x10000)
        self.bar = mmap.mmap(self.file, 0x10000)
        self.registers = Registers(self.bar)
        self.config = bytearray(4096)
        self.dma = {}  # address -> (memory, size)
        self.unmapped = []  # looked at when the host has left, and never touched before
        self.vectors = {}  # (index, vector) -> eventfd
        self.running = False
        self.resets = 0
        self.beat = 0
        self.cell = 41
        self.zeroized = 0
        self.identify()
        self.reset()

    def identify(self):
        registers = self.registers
        registers[MAGIC] = 0x31444B51
        registers[VERSION] = 0x00020000 if self.script == "other-major" else 0x00010000
        registers[FEATURES] = 3 | (1 << 63 if self.script == "test-key" else 0)
        registers[SERIAL], registers[PEER_SERIAL] = SERIAL_NUMBER, PEER
        registers[ROLE], registers[BLOCK_MAX] = 2, BLOCK_BYTES
        registers[RETENTION_BYTES], registers[RETENTION_BLOCKS] = 1 << 20, 256
        registers[CELL], registers[SESSION], registers[LINK_STATE] = self.cell, 8, DISTILLING
        registers[NEWEST_SESSION], registers[NEWEST_SEQUENCE] = FRESH[-1]
        registers[RETAINED_BLOCKS], registers[RETAINED_BYTES] = 1 + len(FRESH), (1 + len(FRESH)) * LENGTH
        registers[BLOCKS_ANNOUNCED] = 1 + len(FRESH)
        config = self.config
        config[0:4] = struct.pack("<HH", 0x5144, 0x0001)
        config[6] = 0x10
        config[8:12] = struct.pack("<I", 0x10800001)
        config[0x2C:0x30] = struct.pack("<HH", 0x5144, 0x0001)
        config[0x10], config[0x18], config[0x34] = 4, 4, 0x40
        config[0x40:0x48] = bytes((0x01, 0x50, 3, 0, 8, 0, 0, 0))
        config[0x50:0x5C] = struct.pack("<BBHII", 0x11, 0x60, 1, 0x002, 0x802)
        config[0x60:0x68] = struct.pack("<BBHI", 0x10, 0, 2, 0x10008000)
        config[0x100:0x104] = struct.pack("<I", 0x00010003)
        config[0x104:0x10C] = struct.pack("<Q", SERIAL_NUMBER ^ (self.script == "other-capability"))

    def reset(self):
        """A function reset: section 11."""
        for register in HOST:
            self.registers[register] = 0
        for register in (COMMAND_DONE, FAULT, ACK_HEAD):
            self.registers[register] = 0
        self.config[4:6] = b"\0\0"
        self.running, self.tag, self.arm, self.to_come = False, 0, 0, []
        self.registers[STATE] = ZEROIZED_STATE if self.registers[STATE] == ZEROIZED_STATE else STOPPED

    def memory(self, address, count):
        """Host memory behind an address, which must be mapped, and bus mastering on (ST-4)."""
        assert self.config[4] & 4, "DMA with bus mastering off"
        for start, (memory, size) in self.dma.items():
            if start <= address and address + count <= start + size:
                return memory, address - start
        raise AssertionError(f"{count} octets at {address:#x} are not mapped")

    def put(self, address, octets):
        memory, at = self.memory(address, len(octets))
        memory[at:at + len(octets)] = octets

    def get(self, address, count):
        memory, at = self.memory(address, count)
        return memory[at:at + count]

    def raise_vector(self, vector):
        eventfd = self.vectors.get((2, vector))
        if eventfd is not None and self.registers[INTERRUPT_ENABLE] >> vector & 1:
            os.eventfd_write(eventfd, 1)

    def step(self):
        """What the card does when nobody asks it."""
        registers = self.registers
        if registers[MAGIC] != 0x31444B51:
            return
        if self.script != "heart-stops" or not self.running:
            self.beat += 1
            registers[HEARTBEAT] = self.beat
        stored = registers[CELL_STORE]
        if stored > self.cell:
            self.cell = stored
            registers[CELL] = 38 if self.script == "cell-falls" else self.cell
            tell(f"cell {stored}")
        command = registers[COMMAND]
        if command >> 16 not in (0, self.tag):
            self.tag = command >> 16
            self.command(command & 0xFFFF, registers[COMMAND_ARGUMENT])
        if self.running:
            self.deliver()
        if self.running:
            self.take_acknowledgements()
            self.interrupt()

    def done(self, outcome=DONE):
        tag = self.tag ^ (0x4000 if self.script == "foreign-answer" and self.running else 0)
        self.registers[COMMAND_DONE] = tag << 16 | outcome
        self.raise_vector(1)

    def command(self, opcode, argument):
        registers = self.registers
        if opcode == SELF_TEST:
            pattern = bytearray(self_test_pattern())
            if self.script == "wrong-pattern":
                pattern[777] ^= 1
            self.put(registers[SLOT_BASE], bytes(pattern))
        elif opcode == RAISE:
            self.raise_vector(argument)
        elif opcode == START:
            if self.script == "starts-never":
                return
            ring = self.get(registers[EVENT_BASE], registers[EVENT_COUNT] * 64)
            tell("started" if not any(ring) else "started with an event ring that was not zeroed")
            self.start()
        elif opcode == STOP:
            if self.script in ("stop-never-done", "stop-and-reset-never-done"):
                return
            self.running = False
            registers[STATE] = STOPPED
            tell("stopped")
        elif opcode == ZEROIZE:
            self.running = False
            registers[RETAINED_BLOCKS], registers[RETAINED_BYTES] = int(self.script == "not-zeroized"), 0
            self.zeroized += 1
            registers[ZEROIZED] = self.zeroized
            registers[SESSION] = 0
            registers[STATE] = ZEROIZED_STATE
            tell("zeroized")
        else:
            return self.done(UNKNOWN_OPCODE)
        self.done()

    def start(self):
        registers = self.registers
        self.event_base, self.event_count = registers[EVENT_BASE], registers[EVENT_COUNT]
        self.slot_base, self.slot_bytes, self.slot_count = (
            registers[SLOT_BASE], registers[SLOT_BYTES], registers[SLOT_COUNT])
        self.ack_base, self.ack_count = registers[ACK_BASE], registers[ACK_COUNT]
        self.events = self.blocks = self.acks = 0
        registers[ACK_HEAD] = 0
        self.arm = registers[ARM] >> 32
        self.to_come = [
            ("block", REPLAYED, self.script != "replayed-without-flag"),
            ("event", dict(kind=REPLAY_END)),
            ("event", dict(kind=SESSION_EVENT, session=8, sequence=13)),
            ("event", dict(kind=9 if self.script == "unknown-kind" else LINK, detail=DISTILLING)),
            *(("block", name, False) for name in FRESH),
        ]
        if self.script == "block-again":
            self.to_come.append(("block", FRESH[0], False))
        if self.script == "foreign-session":
            self.to_come.append(("block", (9, 0), False))
        self.running = True
        registers[STATE] = RUNNING

    def deliver(self):
        """Writes what there is room for, in the order of section 8."""
        registers = self.registers
        wrapped = lambda value: value & 0xFFFFFFFF
        while self.to_come:
            if not 1 <= wrapped(self.events + 1 - registers[EVENT_CONSUMED]) <= self.event_count:
                return
            what, *values = self.to_come[0]
            if what == "block":
                if not 1 <= wrapped(registers[SLOT_CREDIT] - self.blocks) <= self.slot_count:
                    return
                self.block(*values)
            else:
                self.event(**values[0])
            self.to_come.pop(0)
            if self.script == "gone-while-running" and self.blocks == 2:
                tell("gone")
                self.bar[:] = b"\xFF" * len(self.bar)
                self.config[:] = b"\xFF" * len(self.config)
                self.running = False
                for vector in (0, 1):
                    os.eventfd_write(self.vectors[2, vector], 1)
                return

    def block(self, name, replayed):
        mid, last = name == FRESH[1], name == FRESH[-1]
        session, sequence = name
        slot = self.blocks % self.slot_count
        payload = key_octets(session, sequence)
        slot_address = self.slot_base + slot * self.slot_bytes
        check = crc32c(payload) ^ (self.script == "bad-payload-crc" and mid)
        magic = BLOCK_MAGIC ^ (self.script == "wrong-magic" and mid)
        reserved = bytes(15) + bytes([self.script == "reserved-bits" and mid])
        shown = sequence + 1 if self.script == "other-header" and mid else sequence
        header = HEADER.pack(magic, 1, replayed, session, shown, LENGTH, 21500, sequence * 1000, reserved, check, 0)[:60]
        header_check = crc32c(header) ^ (self.script == "bad-header-crc" and mid)
        self.put(slot_address + 64, payload)
        self.put(slot_address, header + struct.pack("<I", header_check))
        self.blocks += 1
        if self.script == "skipped-event" and mid:
            # The number is used up, and the entry never written.
            self.events += 1
            return
        length = 0 if self.script == "block-of-no-length" and last else LENGTH
        self.event(kind=BLOCK, slot=slot + (self.script == "wrong-slot" and mid), session=session, sequence=sequence,
                   length=length, corrupt=self.script == "bad-event-crc" and mid)

    def event(self, kind, slot=0, session=0, sequence=0, length=0, detail=0, corrupt=False):
        place = self.event_base + (self.events % self.event_count) * 64
        entry = EVENT.pack(kind, 0, slot, session, sequence, length, detail, bytes(24), 0, 0)[:56]
        self.events += 1
        self.put(place, entry)
        memory, at = self.memory(place + 56, 8)
        with memoryview(memory) as view, view.cast("Q") as words:
            # One store of eight octets: crc and number.
            words[at // 8] = (crc32c(entry) ^ corrupt) | self.events << 32

    def take_acknowledgements(self):
        tail = self.registers[ACK_TAIL]
        while self.acks != tail:
            entry = self.get(self.ack_base + (self.acks % self.ack_count) * 32, 32)
            first_session, first_sequence, last_session, last_sequence = ACKNOWLEDGEMENT.unpack(entry)
            tell(f"acknowledged ({first_session}, {first_sequence}) to ({last_session}, {last_sequence})")
            self.acks += 1
            self.registers[ACK_HEAD] = self.acks + 5 * (self.script == "acknowledged-too-much")

    def interrupt(self):
        armed = self.registers[ARM]
        if armed >> 32 != self.arm and 1 <= (self.events - armed) & 0xFFFFFFFF < 1 << 31:
            self.arm = armed >> 32
            self.raise_vector(0)


class Refusal(Exception):
    """The errno of an answer."""


class Server:
    """One host's connection, whole messages in, whole answers out."""

    def __init__(self, connection, card):
        self.connection, self.card = connection, card

    def serve(self):
        """Until the host leaves."""
        while True:
            # The card works in between: a host that polls registers sends nothing.
            ready, _, _ = select.select([self.connection], [], [], 0.001)
            self.card.step()
            if ready and not self.message():
                return

    def message(self):
        octets, fds, _, _ = socket.recv_fds(self.connection, 16, 8)
        if not octets:
            return False
        octets += self.exactly(16 - len(octets))
        number, command, size, flags, _ = struct.unpack("<HHIII", octets)
        body = self.exactly(size - 16)
        try:
            answer, given, error = *self.answer(command, body, fds), 0
        except Refusal as refusal:
            answer, given, error = b"", None, refusal.args[0]
        if not flags & 0x10:
            header = struct.pack("<HHIII", number, command, 16 + len(answer), 1 | 0x20 * bool(error), error)
            rights = [] if given is None else [
                (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given]))]
            self.connection.sendmsg([header + answer], rights)
        return True

    def exactly(self, count):
        octets = b""
        while len(octets) < count:
            more = self.connection.recv(count - len(octets))
            assert more, "the host left within a message"
            octets += more
        return octets

    def answer(self, command, body, fds):
        """Body of the answer and the descriptor that goes with it."""
        card = self.card
        if command == 1:
            major, minor = struct.unpack_from("<HH", body)
            assert major == 0 and (len(body) == 4 or body.endswith(b"\0")), body
            return struct.pack("<HH", 0, min(minor, 1)) + b'{"capabilities":{"max_msg_fds":8}}\0', None
        if command == 2:
            argsz, flags, offset, address, size = struct.unpack("<IIQQQ", body)
            assert (argsz, flags, len(fds)) == (32, 3, 1), (argsz, flags, fds)
            card.dma[address] = mmap.mmap(fds[0], size, offset=offset), size
            os.close(fds[0])
            return b"", None
        if command == 3:
            _, _, address, size = struct.unpack("<IIQQ", body)
            memory, mapped = card.dma.pop(address)
            assert mapped == size, "a mapping is cut in two"
            card.unmapped.append(memory)
            tell("unmapped")
            return body, None
        if command == 4:
            return struct.pack("<IIII", 16, 3, 9, 5), None
        if command == 5:
            index, = struct.unpack_from("<I", body, 8)
            size = {0: 0x10000, 2: 0x1000, 7: 4096}.get(index, 0)
            flags = 7 if index == 0 else 3 if size else 0
            return struct.pack("<IIIIQQ", 32, flags, index, 0, size, 0), card.file if index == 0 else None
        if command == 7:
            index, = struct.unpack_from("<I", body, 8)
            return struct.pack("<IIII", 16, 1, index, (0, 0, 2, 1, 1)[index]), None
        if command == 8:
            _, flags, index, start, count = struct.unpack("<IIIII", body)
            assert flags == 0x24 and count == 1, (flags, count)
            card.vectors[index, start] = fds[0] if fds else None
            return b"", None
        if command in (9, 10):
            offset, region, count = struct.unpack_from("<QII", body)
            assert region == 7 and offset + count <= 4096, "registers are mapped, nothing else is read by message"
            if command == 9:
                return body + bytes(card.config[offset:offset + count]), None
            if offset <= 4 < offset + count:
                card.config[4] = body[16 + 4 - offset] & 6
                tell(f"bus mastering {'on' if card.config[4] & 4 else 'off'}")
            return body[:16], None
        if command == 13:
            card.resets += 1
            tell("reset")
            if card.script == "stop-and-reset-never-done" and card.resets > 1:
                raise Refusal(errno.EIO)
            card.reset()
            return b"", None
        raise Refusal(errno.EOPNOTSUPP)


def main(path, script):
    assert script in SCRIPTS, script
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    tell("ready")
    connection, _ = listener.accept()
    card = Card(script)
    Server(connection, card).serve()
    memory = card.unmapped + [memory for memory, _ in card.dma.values()]
    tell("the host left its memory wiped" if not any(any(area[:]) for area in memory) else "the host left key behind")


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(SCRIPTS))
    else:
        main(*sys.argv[1:])
