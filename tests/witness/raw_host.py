"""A client of vfio-user, and a host with memory of its own as in section 21 of contract/CONTRACT.md, written from the
document and the public protocol alone."""
import array
import errno
import mmap
import os
import select
import socket
import struct
import time

import card_numbers
from card_numbers import *

DEADLINE = 60.0
CONFIG = 7

# Section 21.
SLOTS, SLOT_SIZE, EVENTS, ACKS = 64, 0x11000, 256, 64
AREA = 0x1_0000_0000
EVENT_AREA, ACK_AREA, AREA_SIZE = 0x440000, 0x444000, 0x445000


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, number):
        super().__init__(errno.errorcode.get(number, number))
        self.number = number


class Client:
    """Speaks vfio-user, one message after the other."""

    def __init__(self, path, agree=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(path)
        self.next = 1
        if agree:
            reply, _ = self.call(1, struct.pack("<HH", 0, 0) + b'{"capabilities":{"max_msg_fds":8}}\0')
            assert struct.unpack_from("<HH", reply) == (0, 0), reply
            assert reply.endswith(b"\0"), reply

    def send(self, command, body, fds=(), flags=0, size=None):
        """Sends one message; `size` overrides what its header claims. Its ID is given back."""
        number, self.next = self.next, (self.next + 1) & 0xFFFF
        header = struct.pack("<HHIII", number, command, 16 + len(body) if size is None else size, flags, 0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([header + body], rights)
        return number

    def receive(self):
        """ID, command, errno, body and descriptors of the next answer."""
        octets, fds, _, _ = socket.recv_fds(self.socket, 16, 8)
        octets += self.exactly(16 - len(octets)) if octets else b""
        if not octets:
            raise EOFError
        number, command, size, flags, error = struct.unpack("<HHIII", octets)
        assert flags & 0xF == 1, f"no reply: flags {flags:#x}"
        assert bool(flags & 0x20) == bool(error), (flags, error)
        return number, command, error, self.exactly(size - 16), fds

    def exactly(self, count):
        octets = b""
        while len(octets) < count:
            more = self.socket.recv(count - len(octets))
            if not more:
                raise EOFError
            octets += more
        return octets

    def call(self, command, body=b"", fds=(), flags=0):
        sent = self.send(command, body, fds, flags)
        number, answered, error, reply, received = self.receive()
        assert (number, answered) == (sent, command), "the answer to another message"
        if error:
            assert not reply and not received
            raise Refused(error)
        return reply, received

    def refused(self, *arguments, **more):
        """The errno of a call that must not succeed."""
        try:
            self.call(*arguments, **more)
        except Refused as refusal:
            return refusal.number
        raise AssertionError(f"{arguments} was not refused")

    def is_closed(self):
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionError):
            return True

    def read(self, region, offset, count):
        reply, _ = self.call(9, struct.pack("<QII", offset, region, count))
        assert reply[:16] == struct.pack("<QII", offset, region, count)
        return reply[16:]

    def write(self, region, offset, octets, flags=0):
        self.call(10, struct.pack("<QII", offset, region, len(octets)) + octets, flags=flags)

    def map(self, iova, size, offset, fds, flags=3):
        self.call(2, struct.pack("<IIQQQ", 32, flags, offset, iova, size), fds)

    def unmap(self, iova, size, flags=0):
        request = struct.pack("<IIQQ", 24, flags, iova, size)
        assert self.call(3, request)[0] == request

    def close(self):
        self.socket.close()


class Host:
    """The card with memory of its own: rings as in section 21."""

    def __init__(self, path):
        self.client = Client(path)
        reply, (bar,) = self.client.call(5, struct.pack("<IIIIQQ", 64, 0, 0, 0, 0, 0))
        argsz, flags, index, _, size, offset = struct.unpack_from("<IIIIQQ", reply)
        assert (argsz, index, size) == (64, 0, 0x10000) and flags & 7 == 7, reply
        self.bar = mmap.mmap(bar, size, offset=offset)
        os.close(bar)
        self.registers = Registers(self.bar)
        self.file = os.memfd_create("host", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.file, AREA_SIZE)
        self.memory = mmap.mmap(self.file, AREA_SIZE)
        self.eventfds = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2)]
        for vector, eventfd in enumerate(self.eventfds):
            self.client.call(8, struct.pack("<IIIII", 20, 4 | 1 << 5, 2, vector, 1), [eventfd])
        self.tag = 0
        self.events = self.slots = self.acks = 0
        self.wait(STATE, STOPPED)

    def close(self):
        self.client.close()
        self.registers.release()
        self.bar.close()
        self.memory.close()
        for fd in (self.file, *self.eventfds):
            os.close(fd)

    def wait(self, register, wanted):
        self.until(lambda: self.registers[register] == wanted, f"{register:#x} never read {wanted:#x}")

    def until(self, true, what):
        end = time.monotonic() + DEADLINE
        while not true():
            assert time.monotonic() < end, what + self.story()
            time.sleep(0.0005)

    def story(self):
        names = ("STATE", "FAULT", "LINK_STATE", "COMMAND_DONE", "RETAINED_BLOCKS")
        return ": " + ", ".join(f"{name} {self.registers[getattr(card_numbers, name)]:#x}" for name in names)

    def master(self, on):
        self.client.write(CONFIG, 4, bytes([6 if on else 2, 0]))

    def map(self):
        self.client.map(AREA, AREA_SIZE, 0, [self.file])

    def rings(self, **other):
        values = dict(SLOT_BASE=AREA, EVENT_BASE=AREA + EVENT_AREA, ACK_BASE=AREA + ACK_AREA, SLOT_BYTES=SLOT_SIZE,
                      SLOT_COUNT=SLOTS, EVENT_COUNT=EVENTS, ACK_COUNT=ACKS, INTERRUPT_ENABLE=3, MODERATION=50) | other
        for name, value in values.items():
            self.registers[getattr(card_numbers, name)] = value

    def command(self, opcode, argument=0):
        """The outcome of a command."""
        self.registers[COMMAND_ARGUMENT] = argument
        self.tag += 1
        self.registers[COMMAND] = self.tag << 16 | opcode
        self.until(lambda: self.registers[COMMAND_DONE] >> 16 == self.tag, f"command {opcode} got no outcome")
        return self.registers[COMMAND_DONE] & 0xFFFF

    def ready(self):
        """Everything that START needs, and a self-test."""
        self.map()
        self.master(True)
        self.rings()
        assert self.command(SELF_TEST) == DONE
        assert self.memory[:4096] == self_test_pattern()
        self.memory[:4096] = bytes(4096)

    def start(self):
        self.memory[EVENT_AREA:EVENT_AREA + EVENTS * 64] = bytes(EVENTS * 64)
        for register in (SLOT_CREDIT, EVENT_CONSUMED, ACK_TAIL):
            self.registers[register] = 0
        self.events = self.slots = self.acks = 0
        assert self.command(START) == DONE
        assert (self.registers[STATE], self.registers[ACK_HEAD]) == (RUNNING, 0)
        self.registers[SLOT_CREDIT] = SLOTS

    def event(self, kind=None):
        """The next event, checked and consumed, with the payload of a block."""
        due = self.events + 1
        place = EVENT_AREA + (self.events % EVENTS) * 64
        self.until(lambda: struct.unpack_from("@I", self.memory, place + 60)[0] == due, f"event {due} never came")
        entry = self.memory[place:place + 64]
        found, flags, slot, session, sequence, length, detail, reserved, crc, number = EVENT.unpack(entry)
        assert (flags, reserved, number) == (0, bytes(24), due), entry.hex(" ")
        assert crc == crc32c(entry[:56]), entry.hex(" ")
        assert kind in (None, found), f"event {found} instead of {kind}"
        payload = None
        if found == BLOCK:
            assert (slot, detail) == (self.slots % SLOTS, 0)
            payload = self.block(slot, session, sequence, length)
            self.slots += 1
            self.registers[SLOT_CREDIT] = SLOTS + self.slots
        else:
            assert (slot, length) == (0, 0) and (found == LINK or detail == 0)
            assert (session, sequence) == (0, 0) or found == SESSION_EVENT
        self.events = due
        self.registers[EVENT_CONSUMED] = due
        return found, session, sequence, detail, payload

    def block(self, slot, session, sequence, length):
        """A block's payload and whether it is replayed; header, both checks and every cell are looked at. The slot is
        wiped."""
        at = slot * SLOT_SIZE
        header = self.memory[at:at + 64]
        payload = self.memory[at + 64:at + 64 + length]
        (magic, version, flags, header_session, header_sequence, header_length, qber, _, reserved, payload_crc,
         header_crc) = HEADER.unpack(header)
        assert header_crc == crc32c(header[:60]) and payload_crc == crc32c(payload)
        assert (magic, version, reserved) == (BLOCK_MAGIC, 1, bytes(16)) and flags in (0, 1) and qber <= 1_000_000
        assert (header_session, header_sequence, header_length) == (session, sequence, length)
        assert 1 <= length <= 65536
        # Section 22: what the octets of positional test key must be.
        key = bytearray()
        for number in range((length + 15) // 16):
            cell = (struct.pack("<I", session & 0xFFFFFFFF) + (sequence & (1 << 40) - 1).to_bytes(5, "little")
                    + number.to_bytes(3, "little"))
            key += cell + struct.pack("<I", crc32c(cell))
        assert payload == key[:length], "other octets than the name stands for"
        assert not any(self.memory[at + 64 + length:at + SLOT_SIZE]), "octets behind the payload"
        self.memory[at:at + 64 + length] = bytes(64 + length)
        return flags == 1, payload

    def acknowledge(self, first, last):
        place = ACK_AREA + (self.acks % ACKS) * 32
        self.memory[place:place + 32] = ACKNOWLEDGEMENT.pack(*first, *last)
        self.acks += 1
        self.registers[ACK_TAIL] = self.acks
        self.wait(ACK_HEAD, self.acks)

    def arm(self, serial):
        self.registers[ARM] = serial << 32 | self.events

    def signalled(self, vector):
        """Waits for an interrupt."""
        ready, _, _ = select.select([self.eventfds[vector]], [], [], DEADLINE)
        assert ready, f"vector {vector} was never raised"
        os.eventfd_read(self.eventfds[vector])

    def function_level_reset(self):
        """Through Device Control, as an operating system does it. Registers answer afterwards."""
        control = self.client.read(CONFIG, 0x68, 2)
        self.client.write(CONFIG, 0x68, bytes([control[0], control[1] | 0x80]))
        self.tag = 0
        self.client.write(CONFIG, 4, bytes([2, 0]))
