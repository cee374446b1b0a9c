"""The numbers of contract/CONTRACT.md, typed from the document by hand, and its CRC. No code of the project is used."""
import struct

# Section 4: offsets in BAR 0.
MAGIC, VERSION, FEATURES, SERIAL, PEER_SERIAL = 0x0000, 0x0004, 0x0008, 0x0010, 0x0018
ROLE, BLOCK_MAX, RETENTION_BYTES, RETENTION_BLOCKS = 0x0020, 0x0024, 0x0028, 0x0030
STATE, FAULT, LINK_STATE, COMMAND_DONE, ZEROIZED = 0x0040, 0x0044, 0x0048, 0x0050, 0x0054
CELL, SESSION, NEWEST_SESSION, NEWEST_SEQUENCE, HEARTBEAT = 0x0058, 0x0060, 0x0068, 0x0070, 0x0078
COMMAND, COMMAND_ARGUMENT, CELL_STORE = 0x0080, 0x0084, 0x0088
SLOT_BASE, EVENT_BASE, ACK_BASE = 0x0090, 0x0098, 0x00A0
SLOT_BYTES, SLOT_COUNT, EVENT_COUNT, ACK_COUNT = 0x00A8, 0x00AC, 0x00B0, 0x00B4
INTERRUPT_ENABLE, MODERATION = 0x00B8, 0x00BC
SLOT_CREDIT, EVENT_CONSUMED, ARM, ACK_TAIL, ACK_HEAD = 0x1000, 0x1040, 0x1080, 0x10C0, 0x1100
TELEMETRY_SEQUENCE, BLOCKS_ANNOUNCED = 0x2000, 0x2028
DMA_ERRORS, RETAINED_BLOCKS, RETAINED_BYTES = 0x2060, 0x2068, 0x2070
WIDE = {FEATURES, SERIAL, PEER_SERIAL, RETENTION_BYTES, CELL, SESSION, NEWEST_SESSION, NEWEST_SEQUENCE, HEARTBEAT,
        CELL_STORE, SLOT_BASE, EVENT_BASE, ACK_BASE, ARM, BLOCKS_ANNOUNCED, DMA_ERRORS, RETAINED_BYTES}
HOST = (COMMAND, COMMAND_ARGUMENT, CELL_STORE, SLOT_BASE, EVENT_BASE, ACK_BASE, SLOT_BYTES, SLOT_COUNT, EVENT_COUNT,
        ACK_COUNT, INTERRUPT_ENABLE, MODERATION, SLOT_CREDIT, EVENT_CONSUMED, ARM, ACK_TAIL)

# Sections 5, 6, 13, 17.
BOOT, STOPPED, RUNNING, STOPPING, ZEROIZING, ZEROIZED_STATE, FAULTED = 1, 2, 3, 4, 5, 6, 7
START, STOP, ZEROIZE, RESET, SELF_TEST, RAISE = 1, 2, 3, 4, 5, 6
DONE, UNKNOWN_OPCODE, WRONG_STATE, BAD_CONFIGURATION, FAILED = 1, 2, 3, 4, 5
DISTILLING = 3
FAULT_DMA, FAULT_RING = 2, 3

# Section 7. Event: kind, flags, slot, session, sequence, length, detail, reserved, crc, number.
BLOCK, REPLAY_END, SESSION_EVENT, LINK = 1, 2, 3, 4
EVENT = struct.Struct("<HHIQQII24sII")
# Block header: magic, version, flags, session, sequence, length, qber, distilled_at, reserved, payload_crc, header_crc.
HEADER = struct.Struct("<IHHQQIIQ16sII")
ACKNOWLEDGEMENT = struct.Struct("<QQQQ")
assert (EVENT.size, HEADER.size, ACKNOWLEDGEMENT.size) == (64, 64, 32)
BLOCK_MAGIC = 0x4B4C4251

_CRC_TABLE = []
for _octet in range(256):
    for _ in range(8):
        _octet = _octet >> 1 ^ (0x82F63B78 if _octet & 1 else 0)
    _CRC_TABLE.append(_octet)


def crc32c(octets):
    """BLK-5."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def self_test_pattern():
    """CMD-9."""
    return bytes(((i ^ i // 256) & 0xFF) ^ 0xA5 for i in range(4096))


assert self_test_pattern()[:16].hex() == "a5a4a7a6a1a0a3a2adacafaea9a8abaa"
assert self_test_pattern()[0x100:0x110].hex() == "a4a5a6a7a0a1a2a3acadaeafa8a9aaab"


class Registers:
    """BAR 0 as shared memory. Each access has the register's own width and is a single load or store."""

    def __init__(self, memory):
        self.view = memoryview(memory)
        self.narrow, self.wide = self.view.cast("I"), self.view.cast("Q")

    def __getitem__(self, register):
        return self.wide[register // 8] if register in WIDE else self.narrow[register // 4]

    def __setitem__(self, register, value):
        if register in WIDE:
            self.wide[register // 8] = value
        else:
            self.narrow[register // 4] = value

    def release(self):
        for view in (self.narrow, self.wide, self.view):
            view.release()
